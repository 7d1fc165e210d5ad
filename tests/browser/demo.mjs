// The story of ./demo, played by two real browsers: by the links of their e-mails into the chat that the accepted invite
// has made. Run by `./demo --check`, which has started everything and says where it is.
//
// Decides: both see the room with the meetup's title and what the other writes; a connection outlives its token, by tokens
// of the Main App; a new name in the Main App is seen in the other's open chat; who has closed the chat gets a push there, until it
// is read; who logs out there is out here, and nobody else is. Nothing waits for a time.
import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { chromium } from "playwright-core";

const { CHAT, MAIN_APP, MAP, TITLE, TO_ADA, TO_BOB } = process.env;
const ROOT = resolve(import.meta.dirname, "../..");
const SEEN_MS_MAX = 30_000;
const folder = mkdtempSync(join(tmpdir(), "caffis-demo-"));
const step = (text) => console.log(`demo: ${text}`);

async function until(what, check, msMax = SEEN_MS_MAX) {
  const deadline = Date.now() + msMax;
  while (!(await check())) {
    assert.ok(Date.now() < deadline, `not within ${msMax} ms: ${what}`);
    await new Promise((done) => setTimeout(done, 25));
  }
}

/** One person with a browser of their own, and what the chat's page says and hears there. */
class Person {
  complaints = [];
  sockets = 0;
  refreshed = 0;
  closed = 0;
  tokens = 0;
  constructor(name, window) {
    Object.assign(this, { name, window, page: window.pages()[0] });
    window.on("page", (page) => this.watch(page));
    this.watch(this.page);
    this.page.on("websocket", (socket) => {
      this.sockets += 1;
      const asked = new Set();
      const frame = (payload) => JSON.parse(String(payload));
      socket.on("framesent", ({ payload }) => frame(payload).type === "auth.refresh" && asked.add(frame(payload).id));
      socket.on("framereceived", ({ payload }) => frame(payload).type === "ack" && asked.has(frame(payload).id) && (this.refreshed += 1));
      socket.on("close", () => (this.closed += 1));
    });
    this.page.on("response", (response) => response.url() === `${MAIN_APP}/v1/token` && response.request().method() === "POST" && response.ok() && (this.tokens += 1));
  }
  watch(page) {
    page.on("pageerror", (error) => this.complaints.push(`error: ${error.message}`));
    page.on("console", (message) => /Content Security Policy|CORS/.test(message.text()) && this.complaints.push(message.text()));
  }
  async comeIn(link) {
    await this.page.goto(link);
    await this.page.getByRole("heading", { name: TITLE }).waitFor({ timeout: SEEN_MS_MAX });
    await until(`${this.name} is connected`, async () => (await this.page.locator("#state").textContent()) === "Connected");
    assert.ok(this.page.url().startsWith(CHAT), this.page.url());
    assert.ok(!/challenge|code|token/.test(this.page.url()), "nothing secret stays in the address");
  }
  async say(text) {
    await this.page.getByRole("textbox", { name: "Message" }).fill(text);
    await this.page.getByRole("textbox", { name: "Message" }).press("Enter");
  }
  sees = (text) => this.page.locator("#messages > li[data-seq]").filter({ hasText: text }).first().waitFor({ timeout: SEEN_MS_MAX });
}

async function main() {
  const options = { executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args: ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"], viewport: { width: 1100, height: 720 } };
  const windows = await Promise.all(["ada", "bob"].map((name) => chromium.launchPersistentContext(join(folder, name), options)));
  const [ada, bob] = windows.map((window, index) => new Person(["Ada", "Bob"][index], window));
  try {
    step("the links of their e-mails lead both into the room of their meetup");
    await Promise.all([ada.comeIn(TO_ADA), bob.comeIn(TO_BOB)]);
    await ada.say("I have the window table");
    await bob.sees("I have the window table");
    await bob.say("Two minutes!");
    await ada.sees("Two minutes!");

    step("the map knows the way to their chat, too");
    const map = await bob.window.newPage();
    await map.goto(MAP);
    const invite = map.locator("#invites > li").filter({ hasText: TITLE });
    assert.match(await invite.locator("span").textContent({ timeout: SEEN_MS_MAX }), /Ada invites you \(accepted\)/);
    assert.ok((await map.locator("#places circle").count()) >= 25);
    const room = await invite.getByRole("link", { name: "Chat" }).getAttribute("href");
    assert.ok(room.startsWith(`${CHAT}/#room=`));
    // Who is near is one step from being written to: the chat has told the map of the room.
    await until("the map leads to the room with Ada", async () => (await map.locator("#write").getAttribute("href")) === room);
    await map.close();

    step("who is renamed in the Main App has the new name in the other's open chat");
    const account = await ada.window.newPage();
    await account.goto(MAIN_APP);
    await account.getByLabel("Name", { exact: true }).fill("Ada Lovelace");
    await account.getByRole("button", { name: "Save" }).click();
    await bob.page.locator("#messages").getByText("Ada Lovelace").first().waitFor({ timeout: SEEN_MS_MAX });

    step("connections outlive their tokens");
    await until("both have shown two new tokens", () => [ada, bob].every((one) => one.refreshed >= 2 && one.tokens >= 3), 60_000);
    assert.deepEqual([ada, bob].map(({ sockets, closed }) => [sockets, closed]), [[1, 0], [1, 0]], "on one connection each");

    step("a page that is loaded anew knows who it is, and the chat again");
    await bob.page.reload();
    await bob.page.locator("#rooms").getByText(TITLE).click({ timeout: SEEN_MS_MAX });
    await bob.sees("I have the window table");

    step("who has closed the chat is told by a push, and what is read elsewhere is taken back");
    const phone = await bob.window.newPage();
    await phone.goto(MAIN_APP);
    await phone.getByRole("heading", { name: "Notifications" }).waitFor({ timeout: SEEN_MS_MAX });
    assert.equal(await phone.locator("#notifications > li").count(), 0);
    await bob.page.goto("about:blank");
    await ada.say("Are you coming?");
    const push = phone.locator("#notifications > li").filter({ hasText: `Ada Lovelace in ${TITLE}: Are you coming?` });
    await push.waitFor({ timeout: SEEN_MS_MAX });
    assert.equal(await phone.locator("#badge").textContent(), "1");
    await bob.page.goto(await push.getByRole("link").getAttribute("href"));
    await bob.sees("Are you coming?");
    await until("the push is taken back", async () => (await phone.locator("#notifications > li").count()) === 0 && (await phone.locator("#badge").isHidden()));
    await phone.close();

    step("who logs out in the Main App is out of the chat");
    const before = bob.closed;
    await account.getByRole("button", { name: "Log out" }).click();
    await until("Ada's connection is closed", () => ada.closed === 1);
    await ada.page.getByRole("link", { name: "Sign in with Caffis" }).waitFor({ timeout: SEEN_MS_MAX });
    await bob.say("Are you still there?");
    await bob.sees("Are you still there?");
    assert.equal(bob.closed, before, "Bob's connection is another");
    assert.equal(ada.sockets, 1, "Ada's page has not tried again");

    for (const person of [ada, bob]) assert.deepEqual(person.complaints, [], `${person.name}'s pages complained`);
    step("passed");
  } catch (error) {
    mkdirSync(join(ROOT, ".check"), { recursive: true });
    await Promise.all([ada, bob].map((person) => person.page.screenshot({ path: join(ROOT, `.check/demo-${person.name}.png`) }).catch(() => {})));
    throw error;
  } finally {
    await Promise.all(windows.map((window) => window.close()));
    rmSync(folder, { recursive: true, force: true });
  }
}

await main().then(() => process.exit(0), (error) => {
  console.error(`demo: FAILED: ${error.stack}`);
  process.exit(1);
});
