/**
 * What each policy leaves behind after a VMRUN of which a log shows a part: carried out with the
 * unknown filled in several ways, of which what comes out the same is certain.
 *
 * @module
 */
import { gif } from "../kvm/control.ts";
import type { Policy } from "../policy.ts";
import { VARIANTS } from "../replay/fill_unknown.ts";
import { LoggedDriver } from "../replay/logged_driver.ts";
import type { LoggedRun } from "../replay/logged_runs.ts";
import { C } from "../svm/machine.ts";
import type { FoundRun } from "./failed_run.ts";
import type { LeftBehind } from "./left_behind.ts";

/** The run as a log's VMRUN. */
function unitOf(run: FoundRun): LoggedRun {
  const { event, vcpu, caps, regs, rip, gpa, vmcb12, check, exit } = run;
  return {
    ...{ event, vcpu, caps, regs, rip, vmcb12Gpa: gpa, vmcb12, check, exit },
    way: "vmrun",
    entered: true,
    stopped: false,
    gap: { before: true, after: true },
    shown: { entries: false, exits: false, bare: false },
    kvm: true,
    memory: new Map(),
    l2rip: undefined,
  };
}

function leftBy(policy: Policy, unit: LoggedRun, variant: number): LeftBehind | undefined {
  const checks: string[] = [];
  const assertions = new Set<string>();
  const driver = new LoggedDriver(policy, variant);
  driver.observer = {
    check: (id) => checks.push(id),
    warn: (text) => assertions.add(text),
    inner() {},
  };
  const progress = driver.run(unit);
  const v = driver.vcpu;
  if (progress === undefined || v === undefined) return undefined;
  const page = v.memory.page(driver.vmcb12);
  const view = new DataView(page.buffer, page.byteOffset, page.byteLength);
  return {
    policy: policy.name,
    outcome: progress === "refused" ? "refused" : progress === "entered" ? "L2 is in" : "L2 ran",
    check: checks[0],
    exitCode: view.getBigUint64(C.exit_code, true),
    eventInj: view.getUint32(C.event_inj, true),
    gif: gif(v),
    guestMode: v.guestMode,
    assertions: [...assertions],
  };
}

/** What several answers agree in. */
function agreed<K extends keyof LeftBehind>(all: readonly LeftBehind[], key: K) {
  const [first, ...others] = all;
  return others.every((other) => other[key] === first?.[key]) ? first?.[key] : undefined;
}

/**
 * What policies leave behind after a VMRUN that a log shows.
 *
 * @param policies The policies.
 * @param run The run.
 * @returns A row a policy; what depends on the unknown is undefined. None where nothing fits what was recorded.
 * @example
 * ```ts
 * import { FailureFinder, leftUnknown, UNIFIED } from "@vmtape/vmtape/engine";
 * const finder = new FailureFinder(undefined);
 * finder.feed({ kind: "session", vcpu: 0, meta: { source: "kvm-tracepoints" } });
 * finder.feed({ kind: "check", vcpu: 0, check: "asid-zero", text: "control->asid == 0" });
 * const [row] = leftUnknown([UNIFIED], finder.finish()!);
 * if (row?.outcome !== "refused" || row.gif !== false) throw new Error();
 * ```
 */
export function leftUnknown(policies: readonly Policy[], run: FoundRun): LeftBehind[] {
  if (run.way !== "vmrun") return [];
  const unit = unitOf(run);
  return policies.flatMap((policy) => {
    const all: LeftBehind[] = [];
    for (let variant = 0; variant < VARIANTS; variant++) {
      const left = leftBy(policy, unit, variant);
      if (left === undefined) return [];
      all.push(left);
    }
    return [{
      policy: policy.name,
      outcome: agreed(all, "outcome") ?? "cannot tell",
      check: agreed(all, "check"),
      exitCode: agreed(all, "exitCode"),
      eventInj: agreed(all, "eventInj"),
      gif: agreed(all, "gif"),
      guestMode: agreed(all, "guestMode"),
      assertions: all[0]?.assertions ?? [],
    }];
  });
}
