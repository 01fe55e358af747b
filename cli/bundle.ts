/**
 * The whole program in one file, and the library with it: `deno task release` makes `dist/vmtape.js`
 * of this module. Run it, or import from it; a policy of one's own imports from it too.
 *
 * @module
 */
import { main } from "./main.ts";
import { bundledIn } from "./thread_modules.ts";

export * from "../engine/mod.ts";
export * from "../codecs/mod.ts";
export * from "../traces/mod.ts";
export * from "../report/mod.ts";
export { offerModules } from "./policy_modules.ts";

const address = new URL(import.meta.url);
const { hash } = address;
address.hash = "";
bundledIn(address);
if (hash === "#share") await import("./shares/worker.ts");
else if (hash === "#confined") await import("./confined_thread.ts");
else if (import.meta.main) await main();
