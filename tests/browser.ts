/**
 * A real browser, for the tests that look at a page as a person does.
 *
 * @module
 */
import type { Browser, Page } from "playwright-core";

const PATHS = [
  Deno.env.get("VMTAPE_CHROMIUM"),
  "/usr/bin/chromium",
  "/usr/bin/chromium-browser",
  "/usr/bin/google-chrome",
];

function isFile(path: string): boolean {
  try {
    return Deno.statSync(path).isFile;
  } catch {
    return false;
  }
}

/** Where Chromium is; undefined where it is not, and then its tests are skipped. */
export const CHROMIUM: string | undefined = PATHS.find((path): path is string =>
  path !== undefined && isFile(path)
);

const FLAGS = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

/** A page, and what it complained about and asked for. */
export interface Opened {
  readonly page: Page;
  /** Errors and warnings of its console, and exceptions nobody caught. */
  readonly complaints: string[];
  /** Addresses it asked for besides its own file. */
  readonly requests: string[];
  /** Milliseconds from opening it until it was ready. */
  readonly ready: number;
}

/** How the page is looked at. */
export interface Look {
  readonly width?: number;
  readonly height?: number;
  readonly dark?: boolean;
  /** Whether there is a finger instead of a pointer. */
  readonly touch?: boolean;
}

/** Opens a page from disk, calls `use`, and closes the browser. */
export async function withPage(
  file: string,
  look: Look,
  use: (opened: Opened) => Promise<void>,
): Promise<void> {
  const { chromium } = await import("playwright-core");
  const browser: Browser = await chromium.launch({ executablePath: CHROMIUM!, args: FLAGS });
  try {
    const { width = 1280, height = 900, dark = false, touch = false } = look;
    const page = await browser.newPage({
      viewport: { width, height },
      colorScheme: dark ? "dark" : "light",
      hasTouch: touch,
    });
    const complaints: string[] = [], requests: string[] = [];
    page.on("console", (message) => {
      if (message.type() !== "log") complaints.push(message.text());
    });
    page.on("pageerror", (error) => complaints.push(error.message));
    page.on("request", (request) => {
      const { href } = new URL(request.url());
      if (href !== `file://${file}` && !href.startsWith("data:")) requests.push(href);
    });
    const start = performance.now();
    await page.goto(`file://${file}`);
    await page.waitForSelector("html[data-ready]", { timeout: 20_000 });
    await use({ page, complaints, requests, ready: performance.now() - start });
  } finally {
    await browser.close();
  }
}
