/**
 * What differs between two records of one case.
 *
 * @module
 */
import { AREAS } from "../../codecs/lab/keys.ts";
import {
  AREA_KEYS,
  CPU_KEYS,
  MIGRATE_KEYS,
  NESTED_KEYS,
  STATE_VALUE_KEYS,
} from "../../codecs/lab/keys.ts";
import type { LabInner, LabRecord, LabState } from "../../codecs/lab/types.ts";
import { SAVE_AREA } from "../../engine/svm/vmcb_fields.ts";
import type { CaseComparison, Differ, Disagreement, Group } from "./groups.ts";
import { words } from "./words.ts";

/** Words of the control areas that hold host addresses, clocks or ASIDs. */
const HOST_WORDS: ReadonlySet<string> = new Set(["040", "048", "050", "058", "0b0"]);
/** CR3 in a save area: with shadow paging the host's root. */
const SHADOW_ROOT = "150";

/**
 * Compares two records of one case.
 *
 * Words that the lab documents as host-dependent are left out, and so are
 * tracepoints. Of a partial record, what it lacks is unknown and not compared, and so is what
 * one of the sources cannot see. When a record was stopped after its second, its events are
 * compared as far as both go.
 *
 * @param a The first record.
 * @param b The second.
 * @returns What differs.
 * @example
 * ```ts
 * import { compareRecords } from "@vmtape/vmtape/traces";
 * const a = { case: "x", spec: "", kernel: "unified", npt: 1, events: [], post: { gif: 1 } };
 * const { disagreements } = compareRecords(a, { ...a, post: { gif: 0 } });
 * if (disagreements[0]?.field !== "post.gif") throw new Error();
 * ```
 */
export function compareRecords(a: LabRecord, b: LabRecord): CaseComparison {
  const found: Disagreement[] = [];
  const unknown = new Set<Group>();
  const cut = stopped(a) || stopped(b);
  const differ = (group: Group, field: string, x: string | undefined, y: string | undefined) => {
    if (x === y) return;
    found.push({
      group,
      field,
      ...(x === undefined ? {} : { a: x }),
      ...(y === undefined ? {} : { b: y }),
    });
  };
  const partial = a.partial === true || b.partial === true;
  const seen = (kind: string) =>
    [a, b].every(({ sees, partial }) => sees ? sees.includes(kind) : partial !== true);
  if (seen("check")) {
    texts("check", reports(a, "check_failed"), reports(b, "check_failed"), cut, differ);
  } else unknown.add(1);
  if (seen("warn")) texts("warn", reports(a, "warn"), reports(b, "warn"), cut, differ);
  // L2 was stopped in a loop before it went on: its reports have filled the lab's buffer since.
  const lost = a.mid?.rc === -1 || b.mid?.rc === -1;
  if (seen("inner") && !lost) inners(a, b, cut, unknown, differ);
  else for (const group of [2, 3] as const) unknown.add(group);
  differ(4, "unmodelled", missed(a), missed(b));
  const { setstate } = a;
  for (const key of ["sregs_errno", "errno"] as const) {
    differ(4, `setstate.${key}`, setstate?.[key]?.toString(), b.setstate?.[key]?.toString());
  }
  migration(a, b, differ);
  for (const phase of ["mid", "smm", "restored", "post"] as const) {
    const x = a[phase];
    const y = b[phase];
    // Every ioctl on a virtual machine that KVM has given up fails: registers seen then are nobody's.
    const dead = x?.rc === -1 && y?.rc === -1 && a.post?.errno === EIO && b.post?.errno === EIO;
    if (x && y) states(phase, x, y, partial, dead, differ);
    else if (x || y) differ(4, phase, x && "present", y && "present");
  }
  return { disagreements: found, unknown };
}

/** What moving to another machine came to; of a record without it that says nothing else. */
function migration({ migrate: a, npt }: LabRecord, { migrate: b }: LabRecord, differ: Differ) {
  if (!a || !b) return differ(4, "migrate", a && "present", b && "present");
  for (const key of MIGRATE_KEYS) {
    if (key === "state") continue;
    differ(4, `migrate.${key}`, a[key]?.toString(), b[key]?.toString());
  }
  const root = SAVE_AREA + parseInt(SHADOW_ROOT, 16);
  const skip = (offset: string) => npt === 0 && parseInt(offset, 16) === root;
  words(4, "migrate.state", 0, a.state, b.state, differ, skip);
}

/** errno of every ioctl once KVM has given the virtual machine up. */
const EIO = 5;
/** What KVM_RUN itself returned. */
const RUN_KEYS: ReadonlySet<string> = new Set(["rc", "errno", "exit", "port"]);

/** Whether the lab stopped the case after a second (KVM_RUN: EINTR). */
function stopped(record: LabRecord): boolean {
  return record.post?.rc === -1 && record.post.errno === 4;
}

/** What a prediction says that the model does not model. */
function missed(record: LabRecord): string | undefined {
  for (const event of record.events) if ("unmodelled" in event) return event.unmodelled;
  return undefined;
}

function reports(record: LabRecord, key: "check_failed" | "warn"): string[] {
  return record.events.flatMap((event) =>
    key in event ? [(event as Readonly<Record<string, string>>)[key] ?? ""] : []
  );
}

function texts(
  field: string,
  a: readonly string[],
  b: readonly string[],
  cut: boolean,
  differ: Differ,
) {
  const length = cut ? Math.min(a.length, b.length) : Math.max(a.length, b.length);
  for (let i = 0; i < length; i++) {
    if (a[i] === b[i]) continue;
    differ(1, field, a[i], b[i]);
    return;
  }
}

function inners(
  a: LabRecord,
  b: LabRecord,
  cut: boolean,
  unknown: Set<Group>,
  differ: Differ,
): void {
  let one = a.events.filter((event): event is LabInner => "at" in event);
  let two = b.events.filter((event): event is LabInner => "at" in event);
  if (cut) {
    // Of a stopped record the last state may be incomplete, and the end is wherever it was stopped.
    const whole = (list: LabInner[]) =>
      list.at(-1)?.cpu ? list.length : Math.max(list.length - 1, 0);
    const length = Math.min(whole(one), whole(two));
    one = one.slice(0, length);
    two = two.slice(0, length);
  }
  const sequence = (list: readonly LabInner[]) => list.map((inner) => inner.at).join(" ") || "none";
  differ(2, "states", sequence(one), sequence(two));
  const shows = (list: readonly LabInner[]) =>
    list.length === 0 || list.some((x) => x.ctl01 ?? x.sav01);
  const areas = shows(one) && shows(two);
  if (!areas) unknown.add(3);
  else if (one.length !== two.length) differ(3, "states", `${one.length}`, `${two.length}`);
  const shadow = a.npt === 0 || b.npt === 0;
  for (let i = 0; i < Math.min(one.length, two.length); i++) {
    const x = one[i]!;
    const y = two[i]!;
    if (x.at !== y.at) break;
    for (const key of NESTED_KEYS) differ(2, `${x.at}.nested.${key}`, x.nested[key], y.nested[key]);
    for (const key of CPU_KEYS) differ(2, `${x.at}.cpu.${key}`, x.cpu?.[key], y.cpu?.[key]);
    if (!areas) continue;
    for (const key of AREA_KEYS) {
      const { vmcb, from } = AREAS[key];
      const skip = (offset: string) =>
        from === 0 ? HOST_WORDS.has(offset) : shadow && offset === SHADOW_ROOT;
      words(3, `${x.at}.${vmcb}`, from, x[key], y[key], differ, skip);
    }
  }
}

/** Keys that records made before they were added do not have. */
const LATE_KEYS: ReadonlySet<string> = new Set(["suberr"]);

function states(
  phase: string,
  a: LabState,
  b: LabState,
  partial: boolean,
  dead: boolean,
  differ: Differ,
): void {
  for (const key of STATE_VALUE_KEYS) {
    if (dead && !RUN_KEYS.has(key)) continue;
    const known = a[key] !== undefined && b[key] !== undefined;
    if ((partial || LATE_KEYS.has(key)) && !known) continue;
    differ(4, `${phase}.${key}`, a[key]?.toString(), b[key]?.toString());
  }
  for (const key of ["vmcb12", "hsave"] as const) {
    words(4, `${phase}.${key}`, 0, a[key], b[key], differ);
  }
  words(4, `${phase}.smram`, undefined, a.smram, b.smram, differ);
}
