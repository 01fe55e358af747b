/**
 * Asking this machine's own kernel.
 *
 * @module
 */
import { LabRecorder } from "../codecs/lab/recorder.ts";
import type { LabRecord } from "../codecs/lab/record.ts";
import type { Ask } from "../traces/hunt/mod.ts";
import { KvmRecorder } from "../traces/kvm/mod.ts";
import { parseScenario } from "../traces/scenarios/scenario_reader.ts";

/**
 * This machine's KVM. A record of it has what userspace sees, and, with tracefs, which checks failed.
 *
 * @param signal Ctrl-C.
 * @throws {KvmError} By the function returned: when this machine's KVM cannot be recorded from.
 */
export function askLive(signal: AbortSignal): Ask {
  return async (lines) => {
    const scenarios = lines.map((line) => parseScenario(line));
    using recorder = new KvmRecorder(scenarios);
    const records: LabRecord[] = [];
    for (const scenario of scenarios) {
      // KVM_RUN does not yield; Ctrl-C is heard between cases.
      await Promise.resolve();
      signal.throwIfAborted();
      const lab = new LabRecorder();
      for (const event of recorder.run(scenario)) lab.add(event);
      const record = lab.finish();
      if (record !== undefined) records.push(record);
    }
    return records;
  };
}
