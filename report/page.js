// The page's own code. Texts of a trace reach the page as text nodes only.
(async () => {
  // Okabe and Ito's colours, which people with any colour vision tell apart; the light and the dark
  // theme each have those that stand out from their ground.
  const COLOURS = {
    light: {
      "entered L2": "#0072b2",
      "failed check": "#d55e00",
      "late failure": "#cc79a7",
      "refused": "#e69f00",
      "failed RSM": "#8a6d00",
      "failed restore": "#009e73",
      "loops": "#56b4e9",
      "shuts down": "#000000",
      "internal error": "#6b6b6b",
    },
    dark: {
      "entered L2": "#3a9bdc",
      "failed check": "#ee7a2b",
      "late failure": "#dd94bb",
      "refused": "#f0b93a",
      "failed RSM": "#f0e442",
      "failed restore": "#1fbf92",
      "loops": "#8fd0f5",
      "shuts down": "#ffffff",
      "internal error": "#9a9a9a",
    },
  };
  const HATCHED = { "cannot tell": "#8a8a8a", "not seen": "#8a8a8a" };
  const SERIES = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#7a7a7a"];
  const LANE = 26;
  const GAP = 6;
  const WAYS = {
    vmrun: "VMRUN",
    rsm: "RSM",
    setstate: "KVM_SET_NESTED_STATE",
    pages: "fetch L2's pages",
    vmexit: "#VMEXIT",
  };

  const $ = (id) => document.getElementById(id);
  function element(tag, attributes, ...children) {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes ?? {})) node.setAttribute(name, value);
    node.append(...children);
    return node;
  }

  async function load() {
    const letters = atob($("data").textContent);
    const packed = new Uint8Array(letters.length);
    for (let i = 0; i < letters.length; i++) packed[i] = letters.charCodeAt(i);
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
    return JSON.parse(await new Response(stream).text());
  }

  const data = await load();
  const { policies, texts, events, names, outcomes, parts } = data;
  const runs = events.length;
  const state = { run: -1, from: 0, to: Math.max(1, runs), finding: -1, part: 0, hits: undefined };
  const colourOf = (outcome) => {
    const name = outcomes[outcome];
    return HATCHED[name] ?? COLOURS[document.documentElement.dataset.theme ?? "light"][name];
  };
  const text = (index) => index < 0 ? "" : texts[index];

  const origins = parts.map((part) => new Map(part.origins));
  // 1: it differs. 2: too little was recorded to tell.
  const open = data.sets.map((set) => set.every((n) => data.findings[n].kind === "unsettled"));
  const differing = parts.map((part) =>
    Uint8Array.from(part.findings, (set) => set < 0 ? 0 : open[set] ? 2 : 1)
  );

  /** Runs of a finding, as flags. */
  function runsOf(finding) {
    const flags = new Uint8Array(runs);
    const within = data.sets.map((set) => set.includes(finding));
    for (const part of parts) {
      for (let i = 0; i < runs; i++) {
        if (part.findings[i] >= 0 && within[part.findings[i]]) flags[i] = 1;
      }
    }
    return flags;
  }

  /** Runs that differ between the chosen pair; of the chosen finding, if there is one. */
  let marked = differing[0] ?? new Uint8Array(runs);

  // The timeline: a lane of outcomes for each policy, and one of what differs.
  const timeline = $("timeline");
  const canvas = timeline.querySelector("canvas");
  let drag;

  function css(name) {
    return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  }

  function draw() {
    const width = Math.max(100, timeline.clientWidth);
    const logged = data.recorded.length > 0 ? 1 : 0;
    const lanes = logged + policies.length + 1 + (state.hits ? 1 : 0);
    const height = lanes * (LANE + GAP + 14) + GAP;
    const ratio = globalThis.devicePixelRatio || 1;
    canvas.width = width * ratio;
    canvas.height = height * ratio;
    canvas.style.height = `${height}px`;
    const g = canvas.getContext("2d");
    g.scale(ratio, ratio);
    g.font = "12px system-ui, sans-serif";
    const { from, to } = state;
    const span = to - from;
    const runAt = (x) => from + Math.floor(x * span / width);
    const colours = outcomes.map((_, i) => colourOf(i));
    const labels = [];
    const columns = policies.map((policy, i) => [policy, data.outcomeOf[i]]);
    if (logged) columns.unshift(["recorded", data.recorded]);
    columns.forEach(([policy, column], lane) => {
      const top = lane * (LANE + GAP + 14) + GAP;
      labels.push([policy, top]);
      for (let x = 0; x < width; x++) {
        const first = runAt(x);
        const last = Math.min(runs, Math.max(first + 1, runAt(x + 1)));
        const counts = new Array(outcomes.length).fill(0);
        for (let i = first; i < last; i++) counts[column[i]]++;
        // Every outcome of the column shows, however rare.
        let y = top + 14;
        const all = last - first;
        counts.forEach((count, outcome) => {
          if (count === 0 || all <= 0) return;
          const part = LANE * count / all;
          g.fillStyle = colours[outcome];
          // What is not known is hatched.
          if (outcomes[outcome] in HATCHED) {
            for (let at = x % 5; at < part; at += 5) g.fillRect(x, y + at, 1, 2);
          } else g.fillRect(x, y, 1, Math.max(1, part));
          y += part;
        });
      }
    });
    const flagLane = (lane, label, colour, flags) => {
      const top = lane * (LANE + GAP + 14) + GAP;
      labels.push([label, top]);
      g.fillStyle = colour;
      for (let x = 0; x < width; x++) {
        const first = runAt(x);
        const last = Math.min(runs, Math.max(first + 1, runAt(x + 1)));
        let some = 0;
        for (let i = first; i < last && some !== 1; i++) some = flags[i] || some;
        if (some === 1) g.fillRect(x, top + 14, 1, LANE);
        else if (some === 2) {
          for (let y = x % 5; y < LANE; y += 5) g.fillRect(x, top + 14 + y, 1, 2);
        }
      }
    };
    const what = state.finding < 0 ? `differs: ${pairName()}` : "shows the chosen finding";
    flagLane(logged + policies.length, what, css("--mark"), marked);
    if (state.hits) {
      const { query, flags } = state.hits;
      flagLane(logged + policies.length + 1, `found: ${query}`, css("--accent"), flags);
    }
    if (state.run >= from && state.run < to) {
      const x = (state.run + 0.5 - from) * width / span;
      g.strokeStyle = css("--ink");
      g.lineWidth = 2;
      g.strokeRect(x - 3, 1, 6, height - 2);
    }
    // Names stand above the mark of the chosen VMRUN.
    for (const [label, top] of labels) {
      g.fillStyle = css("--panel");
      g.fillRect(2, top - 2, g.measureText(label).width + 4, 15);
      g.fillStyle = css("--soft");
      g.fillText(label, 4, top + 10);
    }
    if (drag && drag.to !== undefined) {
      g.globalAlpha = 0.25;
      g.fillStyle = css("--accent");
      g.fillRect(Math.min(drag.from, drag.to), 0, Math.abs(drag.to - drag.from), height);
      g.globalAlpha = 1;
    }
  }

  let frame = 0;
  function redraw() {
    cancelAnimationFrame(frame);
    frame = requestAnimationFrame(draw);
  }

  function showRange() {
    $("range").textContent = runs === 0 ? "" : `VMRUNs ${state.from} to ${state.to - 1} of ${runs}`;
  }

  function zoom(from, to) {
    const span = Math.max(1, Math.min(runs, Math.round(to - from)));
    state.from = Math.max(0, Math.min(Math.round(from), runs - span));
    state.to = state.from + span;
    showRange();
    redraw();
  }
  function zoomBy(factor, about = state.run >= 0 ? state.run : (state.from + state.to) / 2) {
    const span = (state.to - state.from) * factor;
    const part = (about - state.from) / (state.to - state.from);
    zoom(about - part * span, about - part * span + span);
  }

  const xOf = (event) => event.clientX - canvas.getBoundingClientRect().left;
  const runOf = (x) =>
    Math.min(
      runs - 1,
      Math.max(0, state.from + Math.floor(x * (state.to - state.from) / canvas.clientWidth)),
    );
  canvas.addEventListener("pointerdown", (event) => {
    const pan = event.shiftKey || event.button === 1;
    if (event.button > 1) return;
    if (pan) event.preventDefault();
    drag = { from: xOf(event), to: undefined, pan, start: state.from };
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointermove", (event) => {
    hover(event);
    if (!drag) return;
    const x = xOf(event);
    if (drag.pan) {
      const span = state.to - state.from;
      const from = drag.start - (x - drag.from) * span / canvas.clientWidth;
      zoom(from, from + span);
    } else if (Math.abs(x - drag.from) > 5) drag.to = x;
    redraw();
  });
  const hint = $("hover").textContent;
  canvas.addEventListener("pointerleave", () => $("hover").textContent = hint);
  canvas.addEventListener("pointerup", (event) => {
    const done = drag;
    drag = undefined;
    if (!done || done.pan || runs === 0) return;
    if (done.to === undefined) choose(nearest(runOf(xOf(event))));
    else zoom(runOf(Math.min(done.from, done.to)), runOf(Math.max(done.from, done.to)) + 1);
    redraw();
  });
  canvas.addEventListener("pointercancel", () => drag = undefined);
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    if (runs > 0) zoomBy(event.deltaY > 0 ? 1.25 : 0.8, runOf(xOf(event)));
  }, { passive: false });

  /** Tells which VMRUN is under the pointer. */
  function hover(event) {
    if (runs === 0) return;
    const run = nearest(runOf(xOf(event)));
    // What becomes of it first: there is room for two lines, and a name may be long.
    $("hover").textContent = `VMRUN ${run}, event ${events[run]}. ${endsOf(run).join(", ")}. ${
      nameOf(run)
    }`;
  }

  /** Of the runs that share a column of pixels, one that is marked. */
  function nearest(run) {
    const perPixel = (state.to - state.from) / Math.max(1, canvas.clientWidth);
    for (let i = run; i < Math.min(runs, run + perPixel); i++) if (marked[i] === 1) return i;
    return run;
  }

  function step(direction, flags) {
    for (let i = state.run + direction; i >= 0 && i < runs; i += direction) {
      if (!flags || flags[i] === 1) return choose(i);
    }
    say(direction > 0 ? "That was the last one" : "That was the first one");
  }

  function say(message) {
    $("said").textContent = message;
  }

  function nameOf(run) {
    return names[run] < 0 ? "" : text(names[run]);
  }

  function titleOf(run) {
    const name = nameOf(run);
    return `VMRUN ${run}, event ${events[run]}${name && ` (${name})`}`;
  }

  function endsOf(run) {
    const ends = policies.map((policy, i) => `${policy}: ${outcomes[data.outcomeOf[i][run]]}`);
    const recorded = data.recorded[run];
    return recorded === undefined ? ends : [`recorded: ${outcomes[recorded]}`, ...ends];
  }

  function pairName() {
    const [a, b] = parts[state.part]?.pair ?? [];
    return a === undefined ? "" : `${policies[a]} / ${policies[b]}`;
  }

  /** The address names what is chosen, so that it can be sent to somebody. */
  function keepAddress() {
    const words = new URLSearchParams();
    if (state.run >= 0) words.set("event", events[state.run]);
    const [a, b] = parts[state.part]?.pair ?? [];
    if (a !== undefined) words.set("pair", `${policies[a]},${policies[b]}`);
    if (state.finding >= 0) words.set("finding", data.findings[state.finding].id);
    try {
      history.replaceState(null, "", `#${words}`);
    } catch {
      // A browser may refuse too many changes in a row; the next one is kept.
    }
  }

  /** Chooses what the address names; says whether there was anything. */
  function followAddress() {
    const words = new URLSearchParams(location.hash.slice(1));
    const pair = words.get("pair");
    const part = parts.findIndex(({ pair: [a, b] }) => `${policies[a]},${policies[b]}` === pair);
    if (part >= 0) setPart(part);
    const id = words.get("finding");
    const of = ({ policies }) => pair === null || policies.join() === pair;
    const finding = data.findings.findIndex((one) => one.id === id && of(one));
    const run = words.has("event") ? events.indexOf(Number(words.get("event"))) : -1;
    if (finding >= 0) chooseFinding(finding, run < 0);
    if (run >= 0) choose(run, true);
    return finding >= 0 || run >= 0;
  }

  function choose(run, quiet = false) {
    if (run < 0 || run >= runs) return;
    state.run = run;
    if (run < state.from || run >= state.to) {
      const span = state.to - state.from;
      zoom(run - span / 2, run + span / 2);
    }
    const title = titleOf(run);
    $("run-title").textContent = title;
    timeline.setAttribute("aria-valuenow", String(run));
    const ends = endsOf(run);
    timeline.setAttribute("aria-valuetext", `${title}; ${ends.join(", ")}`);
    if (!quiet) say(`${title}. ${ends.join(", ")}`);
    showRun(run);
    keepAddress();
    redraw();
  }

  // A run: steps beside each other, and what differs at the end.
  function stepsOf(policy, run, told) {
    let way = "";
    const list = [];
    if (told) {
      for (const step of data.explained[run][policy]) {
        const key = `${step.way} ${step.depth}`;
        if (step.way !== "" && key !== way) {
          list.push({ way: step.way, head: true, name: WAYS[step.way] ?? step.way, doc: "" });
        }
        way = key;
        list.push({ ...step, head: false });
      }
      return list;
    }
    for (const number of data.stepLists[data.stepsOf[policy][run]] ?? []) {
      if (number < 0) {
        way = data.ways[-1 - number];
        list.push({ way, head: true, name: WAYS[way] ?? way, doc: "" });
      } else list.push({ way, head: false, ...data.steps[number] });
    }
    return list;
  }

  function besides(a, b) {
    const same = (x, y) => x.name === y.name && x.way === y.way && x.head === y.head;
    const m = b.length + 1;
    const best = new Uint32Array((a.length + 1) * m);
    for (let i = a.length - 1; i >= 0; i--) {
      for (let j = b.length - 1; j >= 0; j--) {
        best[i * m + j] = same(a[i], b[j])
          ? best[(i + 1) * m + j + 1] + 1
          : Math.max(best[(i + 1) * m + j], best[i * m + j + 1]);
      }
    }
    const rows = [];
    let i = 0, j = 0;
    while (i < a.length || j < b.length) {
      if (i < a.length && j < b.length && same(a[i], b[j])) rows.push([a[i++], b[j++]]);
      else if (j >= b.length || i < a.length && best[(i + 1) * m + j] >= best[i * m + j + 1]) {
        rows.push([a[i++], undefined]);
      } else rows.push([undefined, b[j++]]);
    }
    return rows;
  }

  function stepCell(step, other, parts) {
    if (!step) {
      return element("div", { class: `step${parts ? " parts" : ""}`, role: "cell" });
    }
    const kind = step.head ? " way" : other ? " only" : "";
    const cell = element("div", { class: `step${kind}${parts ? " parts" : ""}`, role: "cell" });
    if (step.head || step.doc === "") cell.append(step.head ? `── ${step.name}` : step.name);
    else {
      const doc = element("p", {}, step.doc);
      cell.append(element("details", {}, element("summary", {}, step.name), doc));
    }
    if (step.writes?.length > 0) {
      const list = element("ul", { class: "writes" });
      for (const [field, a, b, bits] of step.writes) {
        const changed = text(bits) === "" ? "" : ` (${text(bits)})`;
        list.append(element("li", {}, `${text(field)}: ${text(a)} → ${text(b)}${changed}`));
      }
      if (step.more > 0) list.append(element("li", {}, `and ${step.more} more`));
      cell.append(list);
    }
    return cell;
  }

  /** Whether the writes of a run's steps are on the page, under both policies. */
  function isTold(run, pair) {
    return pair.every((policy) => data.explained[run]?.[policy]);
  }

  /** Where the writes of the steps are to be had. */
  function elsewhere(run, part) {
    if (isTold(run, part.pair)) return "";
    const command = data.commands[parts.indexOf(part)].replace("-1", String(events[run]));
    const note =
      "What each step writes is on this page for the first VMRUN of a finding; for this:";
    return element(
      "div",
      {},
      element("p", { class: "meta" }, note),
      element(
        "p",
        { class: "copied" },
        element("code", {}, command),
        " ",
        element("button", { type: "button", "data-copy": "" }, "Copy command"),
      ),
    );
  }

  function stepTable(run, pair) {
    const told = isTold(run, pair);
    const grid = element("div", { class: "steps", role: "table", "aria-label": "Steps" });
    const head = element("div", { role: "row", style: "display:contents" });
    for (const policy of pair) {
      head.append(element("div", { class: "step head", role: "columnheader" }, policies[policy]));
    }
    grid.append(head);
    let parted = false;
    for (const [x, y] of besides(stepsOf(pair[0], run, told), stepsOf(pair[1], run, told))) {
      const parts = !parted && (!x || !y);
      if (parts) grid.append(element("div", { class: "parted" }, "▼ The policies part here"));
      parted ||= parts;
      const row = element("div", { role: "row", style: "display:contents" });
      row.append(stepCell(x, !y, parts), stepCell(y, !x, parts));
      grid.append(row);
    }
    return grid;
  }

  function reportLines(run, pair) {
    const list = element("ul");
    for (const policy of pair) {
      for (const index of data.reportLists[data.reportsOf[policy][run]] ?? []) {
        const failed = element("span", { class: "failed" }, text(index));
        list.append(element("li", {}, `${policies[policy]}: `, failed));
      }
    }
    return list;
  }

  function fieldTable(run, part) {
    const list = data.lists[part.fields[run]] ?? [];
    if (part.findings[run] < 0) {
      const unknown = part.pair.some((policy) =>
        outcomes[data.outcomeOf[policy][run]] === "cannot tell"
      );
      return element(
        "p",
        {},
        unknown ? "Nothing that was recorded tells them apart." : "Both end alike.",
      );
    }
    const body = element("tbody");
    for (const number of list) {
      const carried = number < 0;
      const row = data.rows[carried ? -1 - number : number];
      const wrote = (name) => name < 0 ? "no step" : text(name);
      body.append(element(
        "tr",
        {},
        element("th", { scope: "row" }, text(row.field)),
        element("td", {}, text(row.a)),
        element("td", {}, text(row.b)),
        element("td", {}, text(row.bits)),
        element(
          "td",
          {},
          carried ? "left by an earlier VMRUN" : `${wrote(row.stepA)} / ${wrote(row.stepB)}`,
        ),
      ));
    }
    const head = element("tr");
    for (
      const name of [
        "Field",
        ...part.pair.map((policy) => policies[policy]),
        "Bits",
        "Written last by",
      ]
    ) {
      head.append(element("th", { scope: "col" }, name));
    }
    const caption = element("caption", { class: "hidden" }, "Fields that differ at the end");
    const table = element("table", { id: "fields" }, caption, element("thead", {}, head), body);
    const scrolls = { class: "wide", role: "group", tabindex: "0", "aria-label": "Fields" };
    const box = element("div", scrolls, table);
    const origin = origins[state.part].get(run);
    if (origin !== undefined) {
      const button = element(
        "button",
        { type: "button" },
        `Go to the earlier VMRUN that left it: ${origin}`,
      );
      button.addEventListener("click", () => choose(origin));
      box.append(element("p", {}, button));
    }
    return box;
  }

  function findingList(run, part) {
    const list = element("ul");
    for (const index of data.sets[part.findings[run]] ?? []) {
      list.append(element("li", {}, data.findings[index].title));
    }
    return list;
  }

  function showRun(run) {
    const part = parts[state.part];
    if (part === undefined) return;
    $("details").replaceChildren(
      findingList(run, part),
      reportLines(run, part.pair),
      element("h3", {}, "Fields that differ at the end"),
      fieldTable(run, part),
      element("h3", {}, "Steps"),
      elsewhere(run, part),
      stepTable(run, part.pair),
    );
  }

  // Findings: a line a mechanism, and the card of the chosen one.
  const cards = [...document.querySelectorAll("[data-card]")];
  const rows = [...document.querySelectorAll("#triage [data-findings]")].map((row) => ({
    row,
    findings: row.dataset.findings.split(" ").map(Number),
  }));
  const partOf = (finding) =>
    parts.findIndex(({ pair: [a, b] }) =>
      policies[a] === finding.policies[0] && policies[b] === finding.policies[1]
    );
  const findingParts = data.findings.map(partOf);

  function chooseFinding(index, first = true) {
    state.finding = index;
    marked = runsOf(index);
    for (const card of cards) card.hidden = Number(card.dataset.card) !== index;
    for (const { row, findings } of rows) {
      const chosen = findings.includes(index);
      row.toggleAttribute("data-chosen", chosen);
      row.querySelector("button").setAttribute("aria-pressed", String(chosen));
    }
    if (findingParts[index] >= 0) showPair(findingParts[index]);
    if (first) choose(data.findings[index].first.run);
  }
  for (const { row, findings } of rows) {
    row.querySelector("button").setAttribute("aria-pressed", "false");
    row.addEventListener("click", () => {
      chooseFinding(findings.find((index) => findingParts[index] === state.part) ?? findings[0]);
    });
  }
  for (const card of cards) card.hidden = true;

  /** Shows a pair, whatever is chosen of it. */
  function showPair(part) {
    state.part = part;
    const { pair: [a, b], different, unsettled } = parts[part];
    $("one").value = String(a);
    $("other").value = String(b);
    const open = unsettled > 0 ? `, ${unsettled.toLocaleString("en")} cannot be told` : "";
    $("pair-says").textContent = `${different.toLocaleString("en")} of ${
      runs.toLocaleString("en")
    } end differently${open}`;
    for (const { row, findings } of rows) {
      row.toggleAttribute("data-aside", !findings.some((index) => findingParts[index] === part));
    }
    if (state.run >= 0) showRun(state.run);
  }

  /** Another pair: what was chosen of the one before is chosen no more. */
  function setPart(part) {
    state.finding = -1;
    marked = differing[part];
    for (const card of cards) card.hidden = true;
    for (const { row } of rows) row.removeAttribute("data-chosen");
    showPair(part);
    keepAddress();
    redraw();
  }
  for (const id of ["one", "other"]) {
    policies.forEach((policy, i) => $(id).append(element("option", { value: String(i) }, policy)));
    $(id).addEventListener("change", () => {
      let [a, b] = [Number($("one").value), Number($("other").value)];
      // The one that was not touched makes way.
      if (a === b && id === "one") b = a === 0 ? 1 : 0;
      else if (a === b) a = b === 0 ? 1 : 0;
      setPart(
        parts.findIndex(({ pair }) => pair[0] === Math.min(a, b) && pair[1] === Math.max(a, b)),
      );
    });
  }

  // Search: what a text is in, then the runs that have it.
  function search(query) {
    const flags = new Uint8Array(runs);
    const wanted = query.toLowerCase();
    const has = texts.map((one) => one.toLowerCase().includes(wanted));
    const rowHas = data.rows.map((row) => Object.values(row).some((n) => n >= 0 && has[n]));
    const listHas = data.lists.map((list) => list.some((n) => rowHas[n < 0 ? -1 - n : n]));
    const reportHas = data.reportLists.map((list) => list.some((n) => has[n]));
    const titleHas = data.findings.map(({ title }) => title.toLowerCase().includes(wanted));
    const setHas = data.sets.map((set) => set.some((n) => titleHas[n]));
    let count = 0;
    for (let i = 0; i < runs; i++) {
      const found = names[i] >= 0 && has[names[i]] ||
        parts.some(({ fields, findings }) =>
          fields[i] >= 0 && listHas[fields[i]] || findings[i] >= 0 && setHas[findings[i]]
        ) || data.reportsOf.some((column) => reportHas[column[i]]);
      if (found) {
        flags[i] = 1;
        count++;
      }
    }
    return { query, flags, count };
  }
  $("search").addEventListener("submit", (event) => {
    event.preventDefault();
    const query = $("query").value.trim();
    if (query === "") return;
    if (state.hits?.query !== query) {
      state.hits = search(query);
      state.run = -1;
    }
    const { count, flags } = state.hits;
    $("hits").value = count === 1 ? "1 VMRUN" : `${count} VMRUNs`;
    if (count === 0) {
      say("Nothing found");
      return redraw();
    }
    let next = flags.indexOf(1, state.run + 1);
    if (next < 0) next = flags.indexOf(1);
    choose(next);
  });
  $("query").addEventListener("input", () => {
    if ($("query").value !== "") return;
    state.hits = undefined;
    $("hits").value = "";
    redraw();
  });

  // Copying.
  async function copy(text, button) {
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      // Without the clipboard, the text is chosen for the person to copy.
      const area = element("textarea", { "aria-label": "Text to copy" }, text);
      document.body.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
    }
    say("Copied");
    button.setAttribute("data-copied", "");
    setTimeout(() => button.removeAttribute("data-copied"), 1500);
  }
  document.addEventListener("click", ({ target }) => {
    const button = target.closest?.("button");
    if (!button) return;
    if (button.id === "link") copy(location.href, button);
    else if (button.dataset.copy !== undefined) {
      copy(button.parentElement.querySelector("code").textContent, button);
    } else if (button.dataset.markdown !== undefined) {
      copy(data.markdown[Number(button.dataset.markdown)], button);
    }
  });

  // Keyboard.
  document.addEventListener("keydown", (event) => {
    const typing = event.target.closest?.("input, select, textarea");
    if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
    const keys = {
      "/": () => $("query").focus(),
      n: () => step(1, differing[state.part]),
      p: () => step(-1, differing[state.part]),
      "+": () => zoomBy(0.5),
      "=": () => zoomBy(0.5),
      "-": () => zoomBy(2),
      0: () => zoom(0, runs),
    };
    const onTimeline = event.target === timeline || event.target === document.body;
    if (onTimeline) {
      keys.ArrowLeft = () => step(-1);
      keys.ArrowRight = () => step(1);
      keys.Home = () => choose(0);
      keys.End = () => choose(runs - 1);
    }
    const act = keys[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  });
  $("next").addEventListener("click", () => step(1, differing[state.part]));
  $("previous").addEventListener("click", () => step(-1, differing[state.part]));
  $("zoom-in").addEventListener("click", () => zoomBy(0.5));
  $("zoom-out").addEventListener("click", () => zoomBy(2));
  $("zoom-all").addEventListener("click", () => zoom(0, runs));

  // Latency.
  const charts = [];
  function seriesColour(policy) {
    const index = policies.indexOf(policy);
    return SERIES[index < 0 ? SERIES.length - 1 : index % (SERIES.length - 1)];
  }
  /** Nanoseconds with a unit that keeps them short. */
  function time(ns) {
    if (ns < 1e3) return `${Math.round(ns)} ns`;
    const [unit, size] = ns < 1e6 ? ["µs", 1e3] : ns < 1e9 ? ["ms", 1e6] : ["s", 1e9];
    return `${(ns / size).toFixed(ns / size < 10 ? 2 : 1)} ${unit}`;
  }
  /** The same for an axis, without digits that say nothing. */
  const tick = (ns) => time(ns).replace(/\.0+ /, " ");
  /** The percentile of what is one in so many. */
  function percentile(rare) {
    return `${Number((100 * (1 - 1 / rare)).toPrecision(7))} %`;
  }
  function plot(id, columns, series, xLabel, log) {
    const axis = {
      stroke: css("--soft"),
      grid: { stroke: css("--line"), width: 1 },
      ticks: { stroke: css("--line"), width: 1 },
      size: 56,
    };
    const texts = (text) => (_plot, values) =>
      values.map((value) => value === null ? "" : text(value));
    const box = $(id);
    const options = {
      width: Math.max(240, box.clientWidth),
      height: 260,
      padding: [8, 36, 0, 0],
      scales: { x: { time: false, ...(log.x ? { distr: 3 } : {}) }, y: log.y ? { distr: 3 } : {} },
      axes: [
        { ...axis, size: 36, label: xLabel, values: texts(log.xTick ?? log.xText) },
        { ...axis, size: 72, values: texts(log.yTick ?? log.yText) },
      ],
      series: [
        { label: xLabel, value: (_, value) => value === null ? "" : log.xText(value) },
        ...series.map((one) => ({
          ...one,
          value: (_, value) => value === null ? "" : log.yText(value),
        })),
      ],
    };
    charts.push(new globalThis.uPlot(options, columns, box));
  }
  function latency() {
    for (const chart of charts.splice(0)) chart.destroy();
    const kind = $("kind").value;
    const rows = data.latency.filter((row) => row.kind === kind);
    if (rows.length === 0) return;
    const steps = rows[0].quantiles.length - 1;
    const series = rows.map(({ policy }) => ({
      label: policy,
      stroke: seriesColour(policy),
      width: 2,
      points: { show: false },
    }));
    // The last percentile is drawn as rarely as it was seen.
    const longest = rows.reduce((most, { tail }) => tail.length > most.length ? tail : most, []);
    const tails = rows.map(({ tail }) => longest.map((_, i) => tail[i] && Math.max(1, tail[i][1])));
    const columns = [longest.map(([rare]) => rare), ...tails];
    plot("percentiles", columns, series, "percentile", {
      x: true,
      y: true,
      xText: percentile,
      yText: time,
      yTick: tick,
    });
    const shown = rows.map(({ quantiles }) => quantiles.map((ns) => Math.max(1, ns)));
    const low = Math.min(...shown.map((q) => q[0]));
    const high = Math.max(...shown.map((q) => q.at(-1))) + 1;
    const bins = 48;
    const edge = (i) => low * Math.pow(high / low, i / bins);
    const counts = shown.map((q) => {
      const shares = new Array(bins).fill(0);
      for (const ns of q) {
        const bin = Math.floor(bins * Math.log(ns / low) / Math.log(high / low));
        shares[Math.min(bins - 1, Math.max(0, bin))] += 100 / q.length;
      }
      return shares;
    });
    const centres = Array.from({ length: bins }, (_, i) => edge(i + 0.5));
    const bars = globalThis.uPlot.paths.stepped({ align: 1 });
    const stepped = series.map((one) => ({ ...one, paths: bars, fill: one.stroke + "33" }));
    plot("histogram", [centres, ...counts], stepped, "time", {
      x: true,
      xText: time,
      xTick: tick,
      yText: (share) => `${Number(share.toFixed(1))} %`,
    });
    const body = element("tbody");
    for (const { policy, count, quantiles, p999, mean, ratio } of rows) {
      const q = (part) => quantiles[Math.round(part * steps)];
      const times = [q(0), q(0.5), q(0.9), q(0.99), p999, q(1), mean].map(time);
      const cells = [count.toLocaleString("en"), ...times, ratio];
      const row = element("tr", {}, element("th", { scope: "row" }, policy));
      for (const cell of cells) row.append(element("td", {}, cell));
      body.append(row);
    }
    const head = element("tr");
    for (
      const name of [
        "policy",
        "count",
        "min",
        "p50",
        "p90",
        "p99",
        "p99.9",
        "max",
        "mean",
        "p50 ratio",
      ]
    ) {
      head.append(element("th", { scope: "col" }, name));
    }
    const caption = element("caption", { class: "hidden" }, "Latency");
    $("latency-table").replaceChildren(
      element("table", {}, caption, element("thead", {}, head), body),
    );
  }
  const kinds = [...new Set(data.latency.map(({ kind }) => kind))];
  for (const kind of kinds) $("kind").append(element("option", {}, kind));
  $("kind").addEventListener("change", latency);
  if (kinds.length === 0) $("latency").hidden = true;

  // Light and dark.
  const dark = globalThis.matchMedia("(prefers-color-scheme: dark)");
  function theme(on) {
    document.documentElement.dataset.theme = on ? "dark" : "light";
    $("theme").setAttribute("aria-pressed", String(on));
    $("legend").replaceChildren(...outcomes.flatMap((name, i) => {
      if (![data.recorded, ...data.outcomeOf].some((column) => column.includes(i))) return [];
      const kind = name in HATCHED ? "key hatched" : "key";
      return element("span", { class: kind, style: `--colour:${colourOf(i)}` }, name);
    }));
    redraw();
    latency();
  }
  $("theme").addEventListener("click", () => {
    theme(document.documentElement.dataset.theme !== "dark");
  });
  dark.addEventListener("change", () => theme(dark.matches));

  timeline.setAttribute("aria-valuemax", String(Math.max(0, runs - 1)));
  if (runs === 0) {
    // There is nothing to choose, to search or to compare.
    for (const part of document.querySelectorAll(".right, .skip, #search, #pair, #keys")) {
      part.hidden = true;
    }
  }
  let resized = 0;
  globalThis.addEventListener("resize", () => {
    clearTimeout(resized);
    resized = setTimeout(() => {
      redraw();
      latency();
    }, 100);
  });
  theme(dark.matches);
  showRange();
  if (parts.length > 0) showPair(0);
  if (!followAddress()) {
    const [first] = rows;
    if (first) chooseFinding(first.findings[0], false);
    choose(first ? data.findings[first.findings[0]].first.run : 0, true);
  }
  globalThis.addEventListener("hashchange", followAddress);
  draw();
  document.documentElement.dataset.ready = "yes";
})();
