import { assertEquals } from "@std/assert";
import { passRatios } from "../cli/pass_ratios.ts";
import type { LatencyRow } from "../engine/latency.ts";

const KIND = "entered";

function pass(...p50s: readonly (readonly [policy: string, p50: number])[]): LatencyRow[] {
  return p50s.map(([policy, p50]) => ({
    policy,
    kind: KIND,
    count: 1,
    min: p50,
    p50,
    p90: p50,
    p99: p50,
    p999: p50,
    max: p50,
    mean: p50,
  }));
}

const passesOf = (...quotients: number[]) =>
  quotients.map((q) => pass(["recorded", 7], ["b", 100 * q], ["a", 100]));

Deno.test("policies that every pass finds slower differ; otherwise it is noise", () => {
  assertEquals(passRatios(passesOf(2, 1.5, 3), ["a", "b"]), [
    { kind: KIND, policy: "b", ratio: 2, low: 1.5, high: 3, noise: false },
  ]);
  assertEquals(passRatios(passesOf(1.5, 0.5, 0.75, 1.25), ["a", "b"]), [
    { kind: KIND, policy: "b", ratio: 1, low: 0.5, high: 1.5, noise: true },
  ]);
});

Deno.test("what no clock tells apart is noise, whatever the passes agree on", () => {
  const noise = (...quotients: number[]) =>
    passRatios(passesOf(...quotients), ["a", "b"])[0]?.noise;
  assertEquals(noise(0.999, 0.998, 0.997), true);
  assertEquals(noise(0.99, 0.98, 0.97), false);
  assertEquals(noise(1.01, 1.02, 1.004), true);
});

Deno.test("two passes prove nothing, and what a pass lacks is left out", () => {
  assertEquals(passRatios(passesOf(2, 2), ["a", "b"])[0]?.noise, true);
  assertEquals(passRatios([...passesOf(2), pass(["a", 100])], ["a", "b"]), []);
  assertEquals(passRatios(passesOf(2), ["a"]), []);
});
