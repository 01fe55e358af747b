// The page's own code. Texts of a trace reach the page as text nodes only.
(async () => {
  const COLOURS = [
    "#3b7dd8",
    "#d97706",
    "#b3261e",
    "#7c3aed",
    "#c2410c",
    "#a16207",
    "#db2777",
    "#475569",
    "#0d9488",
  ];
  const DIFFERS = "#b3261e";
  const SERIES = ["#3b7dd8", "#d97706", "#1a936f", "#7c3aed", "#b3261e", "#475569"];
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
    const packed = Uint8Array.from(atob($("data").textContent), (c) => c.charCodeAt(0));
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
    return JSON.parse(await new Response(stream).text());
  }

  const data = await load();
  const { policies, texts, events, names, outcomes, parts } = data;
  const runs = events.length;
  const state = { run: -1, from: 0, to: Math.max(1, runs), finding: -1, part: 0, hits: undefined };
  const text = (index) => index < 0 ? "" : texts[index];

  const differs = new Uint8Array(runs);
  for (const part of parts) {
    for (let i = 0; i < runs; i++) if (part.findings[i] >= 0) differs[i] = 1;
  }
  const origins = parts.map((part) => new Map(part.origins));

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

  // The timeline: a lane of outcomes for each policy, and one of what differs.
  const timeline = $("timeline");
  const canvas = timeline.querySelector("canvas");
  let marked = differs;
  let drag;

  function css(name) {
    return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  }

  function draw() {
    const width = Math.max(100, timeline.clientWidth);
    const lanes = policies.length + 1;
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
    policies.forEach((policy, lane) => {
      const top = lane * (LANE + GAP + 14) + GAP;
      g.fillStyle = css("--soft");
      g.fillText(policy, 4, top + 10);
      const column = data.outcomeOf[lane];
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
          g.fillStyle = COLOURS[outcome];
          g.fillRect(x, y, 1, Math.max(1, part));
          y += part;
        });
      }
    });
    const top = policies.length * (LANE + GAP + 14) + GAP;
    g.fillStyle = css("--soft");
    g.fillText(state.finding < 0 ? "ends differently" : "shows the chosen finding", 4, top + 10);
    g.fillStyle = css("--mark") || DIFFERS;
    for (let x = 0; x < width; x++) {
      const first = runAt(x);
      const last = Math.min(runs, Math.max(first + 1, runAt(x + 1)));
      let some = false;
      for (let i = first; i < last && !some; i++) some = marked[i] === 1;
      if (some) g.fillRect(x, top + 14, 1, LANE);
    }
    if (state.run >= from && state.run < to) {
      const x = (state.run + 0.5 - from) * width / span;
      g.strokeStyle = css("--ink");
      g.lineWidth = 2;
      g.strokeRect(x - 3, 1, 6, height - 2);
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
    drag = { from: xOf(event), to: undefined };
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!drag) return;
    const x = xOf(event);
    if (Math.abs(x - drag.from) > 5) drag.to = x;
    redraw();
  });
  canvas.addEventListener("pointerup", (event) => {
    const done = drag;
    drag = undefined;
    if (!done || runs === 0) return;
    if (done.to === undefined) choose(nearest(runOf(xOf(event))));
    else zoom(runOf(Math.min(done.from, done.to)), runOf(Math.max(done.from, done.to)) + 1);
    redraw();
  });
  canvas.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && !event.shiftKey) return;
    event.preventDefault();
    zoomBy(event.deltaY > 0 ? 1.25 : 0.8, runOf(xOf(event)));
  }, { passive: false });

  /** Of the runs that share a column of pixels, one that is marked. */
  function nearest(run) {
    const perPixel = (state.to - state.from) / Math.max(1, canvas.clientWidth);
    for (let i = run; i < Math.min(runs, run + perPixel); i++) if (marked[i]) return i;
    return run;
  }

  function step(direction, flags) {
    for (let i = state.run + direction; i >= 0 && i < runs; i += direction) {
      if (!flags || flags[i]) return choose(i);
    }
    say(direction > 0 ? "That was the last one" : "That was the first one");
  }

  function say(message) {
    $("said").textContent = message;
  }

  function nameOf(run) {
    return names[run] < 0 ? "" : text(names[run]);
  }

  function choose(run, quiet = false) {
    if (run < 0 || run >= runs) return;
    state.run = run;
    if (run < state.from || run >= state.to) {
      const span = state.to - state.from;
      zoom(run - span / 2, run + span / 2);
    }
    const name = nameOf(run);
    const title = `VMRUN ${run}, event ${events[run]}${name && ` (${name})`}`;
    $("run-title").textContent = title;
    timeline.setAttribute("aria-valuenow", String(run));
    const ends = policies.map((policy, i) => `${policy}: ${outcomes[data.outcomeOf[i][run]]}`);
    timeline.setAttribute("aria-valuetext", `${title}; ${ends.join(", ")}`);
    if (!quiet) say(`${title}. ${ends.join(", ")}`);
    showRun(run);
    redraw();
  }

  // A run: steps beside each other, and what differs at the end.
  function stepsOf(policy, run) {
    let way = "";
    const list = [];
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
    return element(
      "div",
      { class: `step${kind}${parts ? " parts" : ""}`, role: "cell", title: step.doc },
      step.head ? `── ${step.name}` : step.name,
    );
  }

  function stepTable(run, other) {
    const grid = element("div", { class: "steps", role: "table", "aria-label": "Steps" });
    const head = element("div", { role: "row", style: "display:contents" });
    for (const policy of [0, other]) {
      head.append(element("div", { class: "step head", role: "columnheader" }, policies[policy]));
    }
    grid.append(head);
    let parted = false;
    for (const [x, y] of besides(stepsOf(0, run), stepsOf(other, run))) {
      const parts = !parted && (!x || !y);
      if (parts) grid.append(element("div", { class: "parted" }, "▼ The policies part here"));
      parted ||= parts;
      const row = element("div", { role: "row", style: "display:contents" });
      row.append(stepCell(x, !y, parts), stepCell(y, !x, parts));
      grid.append(row);
    }
    return grid;
  }

  function reportLines(run, other) {
    const list = element("ul");
    for (const policy of [0, other]) {
      for (const index of data.reportLists[data.reportsOf[policy][run]] ?? []) {
        const failed = element("span", { class: "failed" }, text(index));
        list.append(element("li", {}, `${policies[policy]}: `, failed));
      }
    }
    return list;
  }

  function fieldTable(run, other) {
    const part = parts[other - 1];
    const list = data.lists[part.fields[run]] ?? [];
    if (part.findings[run] < 0) return element("p", {}, "Both end alike.");
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
    for (const name of ["Field", policies[0], policies[other], "Bits", "Written last by"]) {
      head.append(element("th", { scope: "col" }, name));
    }
    const caption = element("caption", { class: "hidden" }, "Fields that differ at the end");
    const table = element("table", { id: "fields" }, caption, element("thead", {}, head), body);
    const box = element("div", { class: "wide" }, table);
    const origin = origins[other - 1].get(run);
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

  function findingList(run, other) {
    const list = element("ul");
    for (const index of data.sets[parts[other - 1].findings[run]] ?? []) {
      list.append(element("li", {}, data.findings[index].title));
    }
    return list;
  }

  function showRun(run) {
    const other = state.part + 1;
    const details = $("details");
    details.replaceChildren(
      findingList(run, other),
      reportLines(run, other),
      element("h3", {}, "Steps"),
      stepTable(run, other),
      element("h3", {}, "Fields that differ at the end"),
      fieldTable(run, other),
    );
  }

  // Findings.
  const cards = [...document.querySelectorAll("[data-finding]")];
  function chooseFinding(index) {
    state.finding = index;
    marked = runsOf(index);
    for (const card of cards) {
      const li = card.closest("li");
      if (Number(card.dataset.finding) === index) li.setAttribute("data-chosen", "");
      else li.removeAttribute("data-chosen");
    }
    const finding = data.findings[index];
    const part = policies.indexOf(finding.policies[1]) - 1;
    if (part >= 0) setPart(part);
    choose(finding.first.run);
    $("run").scrollIntoView({ block: "nearest" });
  }
  for (const card of cards) {
    card.addEventListener("click", () => chooseFinding(Number(card.dataset.finding)));
  }

  function setPart(part) {
    state.part = part;
    $("other").value = String(part);
    if (state.run >= 0) showRun(state.run);
  }
  parts.forEach((_, i) =>
    $("other").append(element("option", { value: String(i) }, policies[i + 1]))
  );
  $("other").addEventListener("change", () => setPart(Number($("other").value)));

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
      marked = state.hits.flags;
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
    marked = state.finding < 0 ? differs : runsOf(state.finding);
    $("hits").value = "";
    redraw();
  });

  // Keyboard.
  document.addEventListener("keydown", (event) => {
    const typing = event.target.closest?.("input, select, textarea");
    if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
    const keys = {
      "/": () => $("query").focus(),
      n: () => step(1, marked),
      p: () => step(-1, marked),
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
  $("next").addEventListener("click", () => step(1, marked));
  $("previous").addEventListener("click", () => step(-1, marked));
  $("zoom-in").addEventListener("click", () => zoomBy(0.5));
  $("zoom-out").addEventListener("click", () => zoomBy(2));
  $("zoom-all").addEventListener("click", () => zoom(0, runs));

  // Latency.
  const charts = [];
  function colourOf(policy) {
    const index = policies.indexOf(policy);
    return SERIES[index < 0 ? SERIES.length - 1 : index % (SERIES.length - 1)];
  }
  function plot(id, columns, series, xLabel, log) {
    const brief = new Intl.NumberFormat("en", { notation: "compact" });
    const axis = {
      stroke: css("--soft"),
      grid: { stroke: css("--line"), width: 1 },
      ticks: { stroke: css("--line"), width: 1 },
      size: 56,
      values: (_plot, values) => values.map((value) => value === null ? "" : brief.format(value)),
    };
    const box = $(id);
    const options = {
      width: Math.max(240, box.clientWidth),
      height: 260,
      scales: { x: { time: false, ...(log.x ? { distr: 3 } : {}) }, y: log.y ? { distr: 3 } : {} },
      axes: [{ ...axis, size: 36, label: xLabel }, axis],
      series: [{ label: xLabel }, ...series],
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
      stroke: colourOf(policy),
      width: 2,
      points: { show: false },
    }));
    // The last percentile is drawn as rarely as it was seen.
    const at = rows[0].quantiles.map((_, i) => 100 * i / steps);
    const shown = rows.map(({ quantiles }) => quantiles.map((ns) => Math.max(1, ns)));
    plot("percentiles", [at, ...shown], series, "percentile", { y: true });
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
    plot("histogram", [centres, ...counts], stepped, "ns", { x: true });
    const body = element("tbody");
    for (const { policy, count, quantiles, p999, mean } of rows) {
      const q = (part) => quantiles[Math.round(part * steps)];
      const cells = [count, q(0), q(0.5), q(0.9), q(0.99), p999, q(1), Math.round(mean)];
      const row = element("tr", {}, element("th", { scope: "row" }, policy));
      for (const cell of cells) row.append(element("td", {}, cell.toLocaleString("en")));
      body.append(row);
    }
    const head = element("tr");
    for (const name of ["ns", "count", "min", "p50", "p90", "p99", "p99.9", "max", "mean"]) {
      head.append(element("th", { scope: "col" }, name));
    }
    const caption = element("caption", { class: "hidden" }, "Latency in nanoseconds");
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
    redraw();
    latency();
  }
  $("theme").addEventListener("click", () => {
    theme(document.documentElement.dataset.theme !== "dark");
  });
  dark.addEventListener("change", () => theme(dark.matches));

  outcomes.forEach((name, i) => {
    if (!data.outcomeOf.some((column) => column.includes(i))) return;
    $("legend").append(element("span", { class: "key", style: `--colour:${COLOURS[i]}` }, name));
  });
  timeline.setAttribute("aria-valuemax", String(Math.max(0, runs - 1)));
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
  const start = differs.indexOf(1);
  choose(start < 0 ? 0 : start, true);
  draw();
  document.documentElement.dataset.ready = "yes";
})();
