// What the tests in real browser windows share: a server, a person at a window, and how one waits.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { createServer } from "node:net";
import { join, resolve } from "node:path";

export const ROOT = resolve(import.meta.dirname, "../..");
export const SERVER = resolve(process.env.CAFFIS_SERVER ?? join(ROOT, "target/release/caffis-chat"));
/** For what takes milliseconds; generous, as the machine may be busy. */
export const SEEN_MS_MAX = 20_000;
/** The jitter of a few attempts while the server is away. */
export const RECONNECTED_MS_MAX = 60_000;

const began = Date.now();
export const step = (text) => console.log(`browser: ${((Date.now() - began) / 1_000).toFixed(1).padStart(5)} s: ${text}`);

export async function freePort() {
  const listener = createServer().listen(0, "127.0.0.1");
  await once(listener, "listening");
  const { port } = listener.address();
  listener.close();
  await once(listener, "close");
  return port;
}

/** Asks again until `check` gives something, or says what it was waiting for. */
export async function until(what, check, msMax = SEEN_MS_MAX) {
  const deadline = Date.now() + msMax;
  for (;;) {
    const seen = await check();
    if (seen) return seen;
    assert.ok(Date.now() < deadline, `not within ${msMax} ms: ${what}`);
    await new Promise((done) => setTimeout(done, 25));
  }
}

/** With what the tests need and `more`; it keeps what it knows in `data`. */
export async function startServer(port, data, more = {}) {
  const { CAFFIS_SERVER: _, CAFFIS_PAGE: __, ...rest } = process.env;
  const env = { ...rest, CAFFIS_LISTEN: `127.0.0.1:${port}`, CAFFIS_DATA_DIR: data, CAFFIS_MODE: "development", ...more };
  const server = spawn(SERVER, { env, stdio: ["ignore", "inherit", "inherit"] });
  const ended = new Promise((done) => server.once("exit", done).once("error", done));
  await until("the server is ready", async () => {
    assert.ok(server.exitCode === null && server.pid, `the server ended with ${server.exitCode}`);
    return fetch(`http://127.0.0.1:${port}/readyz`).then((response) => response.ok, () => false);
  });
  return { kill: async (signal) => { server.kill(signal); await ended; } };
}

/** One person at one window. */
export class Person {
  complaints = [];
  constructor(name, page) {
    this.name = name;
    this.page = page;
    page.on("pageerror", (error) => this.complaints.push(`error: ${error.message}`));
    page.on("console", (message) => {
      if (/Content Security Policy/.test(message.text())) this.complaints.push(message.text());
    });
  }
  async comeIn(url) {
    await this.page.goto(url);
    await this.signIn();
  }
  /** So that a server that ends waits for nobody. */
  leave = () => this.page.goto("about:blank").catch(() => {});
  async signIn() {
    await this.page.getByLabel("Your name").fill(this.name);
    await this.page.getByRole("button", { name: "Come in" }).click();
    await this.connected();
  }
  async talkTo(other) {
    await this.page.getByPlaceholder("Talk to …").fill(other);
    await this.page.getByRole("button", { name: "Talk", exact: true }).click();
    await this.page.getByRole("heading", { name: other }).waitFor({ timeout: SEEN_MS_MAX });
  }
  async open(other) {
    await this.page.getByRole("navigation").getByRole("button", { name: new RegExp(`^${other}`) }).click();
    await this.page.getByRole("heading", { name: other }).waitFor({ timeout: SEEN_MS_MAX });
  }
  async say(text) {
    await this.page.getByRole("textbox", { name: "Message" }).fill(text);
    await this.page.getByRole("textbox", { name: "Message" }).press("Enter");
  }
  state = () => this.page.locator("#state").textContent();
  connected = () => until(`${this.name} is connected`, async () => (await this.state()) === "Connected", RECONNECTED_MS_MAX);
  disconnected = () => until(`${this.name} notices`, async () => (await this.state()) !== "Connected");
  /** What stands on the page, from above: `seq` is missing while a message is only sent. */
  lines = () => this.page.locator("#messages > li:not(.system)").evaluateAll((all) =>
    all.map((line) => ({ seq: line.dataset.seq, text: line.querySelector(".text")?.textContent ?? "" })));
  message = (text, stored = "[data-seq]") => this.page.locator(`#messages > li${stored}`).filter({ has: this.page.locator(".text", { hasText: text }) }).last();
  /** By the menu of a message. */
  async menu(text, ...labels) {
    await this.message(text).hover();
    await this.message(text).getByRole("button", { name: /^Menu of the message/ }).click();
    for (const label of labels) await this.page.getByRole("menuitem", { name: label, exact: true }).click();
  }
  /** Waits until what is found by `selector` says something that fits. */
  shows = (selector, fits) => until(`${this.name} sees ${fits} in ${selector}`, async () =>
    (await this.page.locator(selector).allTextContents()).some((text) => fits.test(text)));
  marks = (text) => this.message(text).locator(".mark").allTextContents();
  row = (name) => this.page.locator("#rooms > li").filter({ has: this.page.locator(".title", { hasText: name }) });
  ticks = (text, state) => until(`${this.name} sees "${text}" as ${state}`, async () => (await this.message(text).locator(".tick").getAttribute("data-state")) === state);
  /** Nothing is wider than the window, and every button has a name. */
  async isTidy() {
    const found = await this.page.evaluate(() => ({
      wide: document.scrollingElement.scrollWidth - innerWidth,
      nameless: [...document.querySelectorAll("button")].filter((one) => one.checkVisibility() && !(one.ariaLabel || one.textContent.trim())).map((one) => one.outerHTML),
    }));
    assert.ok(found.wide <= 0, `${this.name}'s page is ${found.wide} px too wide`);
    assert.deepEqual(found.nameless, []);
  }
  sees = (text) => until(`${this.name} sees "${text}"`, async () => (await this.lines()).some((line) => line.text === text));
}

/** Both show exactly `wanted`, in one order, by ascending seq. Returns that order. */
export async function agree(ada, bob, wanted, msMax = SEEN_MS_MAX) {
  let seen;
  const sorted = (lines) => lines.map((line) => line.text).sort().join("\n");
  await until("both pages show every message", async () => {
    seen = [await ada.lines(), await bob.lines()];
    return seen.every((lines) => lines.length >= wanted.length && lines.every((line) => line.seq));
  }, msMax).catch((error) => {
    const missing = seen.map((lines) => wanted.filter((text) => !lines.some((line) => line.text === text && line.seq)));
    throw new Error(`${error.message}; Ada lacks ${missing[0]}; Bob lacks ${missing[1]}`);
  });
  for (const lines of seen) {
    assert.equal(sorted(lines), [...wanted].sort().join("\n"), "every message once");
    assert.deepEqual(lines.map((line) => Number(line.seq)), lines.map((line) => Number(line.seq)).sort((one, other) => one - other));
  }
  assert.deepEqual(seen[0], seen[1], "one order for both");
  return seen[0].map((line) => line.text);
}
