// Two people talk in two real browser windows, do what one does in a chat, and go on while the server is killed and
// started again.
//
//   CAFFIS_SERVER=target/release/caffis-chat node tests/browser/run.mjs [--screenshot]
//   CAFFIS_PAGE=web/dist …   takes the page from that folder instead of the one built into the server
//
// Decides: both pages show every message once, in one order, whatever happened on the way, and each
// reconnects by itself; what one does to a message the other sees. Nothing waits for a time; everything waits
// for something to be seen, with a deadline. `--screenshot` writes docs/screenshot.png. What the server does
// not know by its /v1/asyncapi.json is left out, and said to be. In the end objects.mjs has the same two, in the same
// windows, use a server whose files are in an object store. `--objects` does only that.
import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { chromium } from "playwright-core";
import { filesInAnObjectStore, startStore } from "./objects.mjs";
import { Person, RECONNECTED_MS_MAX, ROOT, SEEN_MS_MAX, agree, freePort, startServer, step, until } from "./people.mjs";

const PAGE = process.env.CAFFIS_PAGE && resolve(process.env.CAFFIS_PAGE);
const BROWSER = process.env.CHROMIUM ?? "/usr/bin/chromium";
const SCREENSHOT = process.argv.includes("--screenshot");
const MESSAGES_EACH = 30;
const BROWSER_FLAGS = [
  "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
  "--disable-background-networking", "--disable-component-update", "--disable-sync",
  // A microphone that is none.
  "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream",
  // A page that the test gives, see CAFFIS_PAGE, comes from no address, and would not be let speak to this one.
  ...(PAGE ? ["--disable-features=LocalNetworkAccessChecks"] : []),
];

const folder = mkdtempSync(join(tmpdir(), "caffis-browser-"));

/** A person's own messages must stand in the order in which they were written. */
function assertOrderOfEach(order, ...written) {
  for (const own of written) assert.deepEqual(order.filter((text) => own.includes(text)), own);
}

/** Scrolls up, page by page of history, until `count` messages are there. */
async function scrollBack(person, count) {
  await until(`${person.name} has scrolled back`, async () => {
    await person.page.locator("#messages").evaluate((list) => list.scrollTo(0, 0));
    return (await person.lines()).length >= count;
  });
}

/** Stands between the page and the server from its next load on: `deaf` loses what the server says, `refuses` lets no
 * message through. */
async function linkOf(page) {
  const link = { deaf: false, refuses: false };
  await page.routeWebSocket(/\/v1\/ws$/, (client) => {
    const server = client.connectToServer();
    link.deaf = false;
    client.onMessage((frame) => {
      const { id, type } = JSON.parse(frame);
      if (!link.refuses || type !== "message.send") return server.send(frame);
      client.send(JSON.stringify({ id, type: "error", error: { code: "forbidden", message: "not now", temporary: false } }));
    });
    server.onMessage((frame) => link.deaf || client.send(frame));
    link.cut = () => Promise.all([client.close({ code: 4201 }), server.close()]);
  });
  return link;
}

/** The files of a folder, with what the server says about its own, or not at all while it is away. */
async function pageFrom(folder, window) {
  await window.route(({ pathname }) => ["/", "/app.js", "/style.css"].includes(pathname), async (route) => {
    const name = new URL(route.request().url()).pathname.slice(1) || "index.html";
    const response = await route.fetch().catch(() => undefined);
    await (response ? route.fulfill({ response, body: readFileSync(join(folder, name)) }) : route.abort("connectionrefused"));
  });
}

/** Both are in their room of two. */
async function changeMessages(ada, bob) {
  step("messages are edited, reacted to, answered, pinned and deleted");
  await ada.say("Shall we meet at the mill?");
  await bob.sees("Shall we meet at the mill?");
  await ada.menu("at the mill", "Edit");
  assert.equal(await ada.page.locator("#text").inputValue(), "Shall we meet at the mill?");
  await ada.say("Shall we meet at the old mill? https://example.org/mill");
  await Promise.all([ada, bob].map((one) => one.sees("Shall we meet at the old mill? https://example.org/mill")));
  await bob.shows("#messages .edited", /edited/);
  const link = bob.message("old mill").getByRole("link");
  assert.deepEqual([await link.getAttribute("href"), await link.getAttribute("rel")], ["https://example.org/mill", "noopener noreferrer nofollow"]);

  await bob.menu("old mill", "❤️");
  await until("Ada sees the reaction", async () => (await ada.marks("old mill")).join() === "❤️1");
  await ada.message("old mill").locator(".mark").click();
  await until("Bob sees both", async () => (await bob.marks("old mill")).join() === "❤️2");
  assert.equal(await ada.message("old mill").locator(".mark").getAttribute("aria-pressed"), "true");
  await ada.message("old mill").locator(".mark").click();
  await until("Bob sees one", async () => (await bob.marks("old mill")).join() === "❤️1");

  // By the keyboard alone: up to the message, its menu, the first entry after the emojis.
  await bob.page.locator("#messages").focus();
  await bob.page.keyboard.press("ArrowUp");
  await bob.page.keyboard.press("Enter");
  await bob.page.getByRole("menuitem", { name: "Reply" }).focus();
  await bob.page.keyboard.press("Enter");
  await bob.page.locator("#context-text", { hasText: "Reply to Ada" }).waitFor();
  await bob.say("Gladly");
  await ada.sees("Gladly");
  assert.match(await ada.message("Gladly").locator(".quote").textContent(), /Ada.*old mill/);
  await ada.message("Gladly").locator(".quote").click();
  await until("Ada is at the message that was answered", () => ada.message("old mill").evaluate((one) => one === document.activeElement));

  await ada.menu("Gladly", "Pin");
  await bob.shows("#pin", /Bob: Gladly/);
  await ada.menu("old mill", "Delete", "Really delete it?");
  await Promise.all([ada, bob].map((one) => one.shows("#messages .deleted .text", /This message was deleted/)));
  await until("the quote says so", async () => /was deleted/.test(await bob.message("Gladly").locator(".quote").textContent()));
  await bob.menu("Gladly", "Unpin");
  await until("nothing is pinned", () => ada.page.locator("#pin").isHidden());
}

async function seeEachOther(ada, bob) {
  step("typing and presence");
  await bob.page.locator("#text").pressSequentially("On my");
  await ada.shows("#typing", /^Bob is typing …$/);
  await bob.say("On my way");
  await ada.sees("On my way");
  await until("Bob types no more", async () => (await ada.page.locator("#typing").textContent()) === "");
  await ada.shows("#subtitle", /^online$/);
  await bob.page.getByLabel("How others see you").selectOption("invisible");
  await ada.shows("#subtitle", /^(last seen|offline)/);
  await bob.page.getByLabel("How others see you").selectOption("online");
  await ada.shows("#subtitle", /^online$/);
}

async function useGroup(ada, bob, knows) {
  step("a group: unread, a mention, roles");
  await ada.page.getByRole("button", { name: "New group" }).click();
  await ada.page.getByRole("textbox", { name: "Name of the group" }).fill("Friday walk");
  await ada.page.getByRole("textbox", { name: "People, separated by commas" }).fill("Bob, Cleo");
  await ada.page.getByRole("button", { name: "Create" }).click();
  await ada.page.getByRole("heading", { name: "Friday walk" }).waitFor();
  await ada.shows("#subtitle", /^3 members/);
  await ada.say("Who comes on Friday?");
  await ada.page.locator("#text").pressSequentially("And you, @Bo");
  await ada.page.getByRole("option", { name: "Bob" }).waitFor();
  await ada.page.locator("#text").press("Enter");
  await ada.page.locator("#text").pressSequentially("?");
  await ada.page.locator("#text").press("Enter");
  await ada.sees("And you, @Bob ?");
  await until("Bob sees two that he has not read, and that he is meant", async () => (await bob.row("Friday walk").locator(".unread").textContent()) === "@ 2");
  await until("the window's title says it", async () => (await bob.page.title()).startsWith("(2) "));
  if (knows("receipt.read")) await ada.ticks("And you", "sent");
  await bob.open("Friday walk");
  await bob.shows("#messages .new", /New messages/);
  assert.equal(await bob.message("And you").locator(".name").textContent(), "@Bob");
  await until("Bob has read it", async () => (await bob.row("Friday walk").locator(".unread").textContent()) === "" && !(await bob.page.title()).startsWith("("));
  await bob.say("I do ☕");
  await ada.sees("I do ☕");

  await ada.page.getByRole("button", { name: "Members and settings" }).click();
  const person = (name) => ada.page.locator("#people > li").filter({ hasText: name });
  await person("Bob").getByRole("button", { name: "Make admin" }).click();
  await person("Bob").getByText("admin, online").waitFor();
  await ada.page.locator("#new-title").fill("Saturday walk");
  await ada.page.getByRole("button", { name: "Save" }).click();
  await person("Cleo").getByRole("button", { name: "Remove" }).click();
  await until("Cleo is gone", async () => (await ada.page.locator("#people > li").count()) === 2);
  await ada.page.keyboard.press("Escape");
  await bob.page.getByRole("heading", { name: "Saturday walk" }).waitFor();
  await bob.shows("#messages .system", /^Ada removed Cleo$/);
  await ada.menu("I do", "❤️");
  await until("Bob sees the heart", async () => (await bob.marks("I do")).join() === "❤️1");
  await bob.menu("And you", "Reply");
  await bob.say("At ten, by the river: https://example.org/mill");
  await ada.sees("At ten, by the river: https://example.org/mill");
  if (SCREENSHOT) await screenshot(ada.page);
}

/** In the group, whose messages both have seen. */
async function receipts(ada, bob) {
  step("receipts: read is read, here and after a reload");
  await ada.ticks("And you", "read");
  await bob.open("Ada");
  await ada.say("Bring your boots");
  await ada.ticks("Bring your boots", "delivered");
  await until("one is unread", async () => (await bob.row("Saturday walk").locator(".unread").textContent()) === "1");
  await bob.page.reload();
  await bob.connected();
  await until("it still is", async () => (await bob.row("Saturday walk").locator(".unread").textContent()) === "1");
  await bob.open("Saturday walk");
  await ada.ticks("Bring your boots", "read");
  await bob.page.reload();
  await bob.connected();
  await bob.row("Saturday walk").waitFor();
  assert.equal(await bob.row("Saturday walk").locator(".unread").textContent(), "");
  await bob.row("Saturday walk").getByRole("button", { name: /^Menu of/ }).click({ force: true });
  await bob.page.getByRole("menuitem", { name: "Archive" }).click();
  await until("it is put away", async () => (await bob.page.locator("#away-rooms > li").count()) === 1);
  await ada.say("And a hat");
  await until("a message brings it back", async () => (await bob.row("Saturday walk").locator(".unread").textContent()) === "1");
  await bob.open("Saturday walk");
}

async function search(ada, bob, text) {
  step("search finds a message of long ago, and goes there");
  await until("Bob can search", () => bob.page.getByRole("searchbox").isVisible());
  await until("it is found", async () => {
    await bob.page.getByRole("searchbox").fill("");
    await bob.page.getByRole("searchbox").fill(text);
    return bob.page.locator("#hits > li").first().waitFor({ timeout: 2_000 }).then(() => true, () => false);
  });
  await bob.page.locator("#hits").getByRole("button").first().click();
  await until("Bob is at the message", () => bob.message(text).evaluate((one) => one === document.activeElement, undefined, { timeout: 1_000 }).catch(() => false));
  await bob.page.locator("#down").click();
  await until("Bob is back at the newest", () => bob.page.locator("#down").isHidden());
  await bob.page.getByRole("searchbox").press("Escape");
  await until("the rooms are back", () => bob.page.locator("#rooms").isVisible());
}

async function block(ada, bob) {
  step("who is blocked is folded away in a group, and not talked to alone");
  await bob.open("Saturday walk");
  await bob.page.getByRole("button", { name: "Members and settings" }).click();
  const entry = bob.page.locator("#people > li").filter({ hasText: "Ada" });
  await entry.getByRole("button", { name: "Block" }).click();
  await entry.getByRole("button", { name: "Unblock" }).waitFor();
  await bob.page.keyboard.press("Escape");
  await until("Ada's messages are folded", async () => (await bob.page.locator("#messages .folded").count()) > 0);
  await bob.open("Ada");
  await bob.page.locator("#severed").getByRole("button", { name: "Unblock" }).click();
  await until("Bob can write again", () => bob.page.locator("#text").isVisible());
  await bob.say("Sorry");
  await ada.open("Bob");
  await ada.sees("Sorry");
}

/** Both are in their room of two. */
async function files(ada, bob) {
  step("files: a picture, two others, one pasted, one dropped, a voice note");
  const png = Buffer.from("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==", "base64");
  const tray = (state) => ada.page.locator(`#tray > li.${state}`);
  const inTray = (count) => until(`${count} files are there`, async () => (await tray("there").count()) === count);
  const attach = (...all) => ada.page.setInputFiles("#attach-input", all.map(([name, mimeType, buffer]) => ({ name, mimeType, buffer })));
  const picture = (person, text) => until(`${person.name} sees the picture`, () =>
    person.message(text).locator("img").evaluate((image) => image.complete && image.naturalWidth === 1 && image.src));
  await attach(["river.png", "image/png", png]);
  await inTray(1);
  await ada.say("The river");
  await bob.sees("The river");
  await picture(ada, "The river");
  const answer = await fetch(await picture(bob, "The river"));
  assert.equal(answer.headers.get("content-type"), "image/png");
  assert.equal(answer.headers.get("content-disposition"), "inline; filename=\"river.png\"; filename*=UTF-8''river.png");
  assert.deepEqual(Buffer.from(await answer.arrayBuffer()), png);

  const pdf = Buffer.from("%PDF-1.4\n1 0 obj<<>>endobj\ntrailer<<>>\n%%EOF\n");
  await attach(["plan.pdf", "application/pdf", pdf], ["notes.txt", "text/plain", Buffer.from("Bring bread.")]);
  await inTray(2);
  await ada.say("Two more");
  await bob.shows("#messages .file span", /^plan\.pdf$/);
  await bob.shows("#messages .file span", /^notes\.txt$/);

  await attach(["page.html", "text/html", Buffer.from("<script>1</script>")]);
  await until("it is refused", async () => (await tray("failed").count()) === 1);
  await ada.page.getByRole("button", { name: "Remove page.html" }).click();
  await until("it is away", async () => (await ada.page.locator("#tray > li").count()) === 0);

  await ada.page.locator("#text").evaluate((text, base64) => {
    const file = (name) => {
      const data = new DataTransfer();
      data.items.add(new File([Uint8Array.from(atob(base64), (one) => one.charCodeAt(0))], name, { type: "image/png" }));
      return data;
    };
    text.dispatchEvent(new ClipboardEvent("paste", { clipboardData: file("pasted.png"), bubbles: true, cancelable: true }));
    text.dispatchEvent(new DragEvent("drop", { dataTransfer: file("dropped.png"), bubbles: true, cancelable: true }));
  }, png.toString("base64"));
  await inTray(2);
  await ada.say("Pasted and dropped");
  await bob.sees("Pasted and dropped");
  await until("Bob sees both", () => bob.message("Pasted and dropped").locator("img").evaluateAll((all) => all.length === 2 && all.every((image) => image.naturalWidth === 1)));

  await ada.page.getByRole("button", { name: "Record a voice note" }).click();
  await ada.page.getByRole("button", { name: "Stop recording" }).click();
  await inTray(1);
  await ada.say("Listen");
  await bob.sees("Listen");
  const plays = await until("Bob has a player", () => bob.message("Listen").locator("audio[src]").count());
  assert.equal(plays, 1);
  assert.ok(await bob.message("Listen").locator("audio").evaluate((audio) => new Promise((done) => {
    audio.preload = "auto";
    [audio.onloadedmetadata, audio.onerror] = [() => done(true), () => done(false)];
    audio.load();
  })), "it can be played");

  step("a page that is loaded anew shows them");
  await bob.page.reload();
  await bob.connected();
  await bob.open("Ada");
  await picture(bob, "The river");
  // What he had not read when the page went stands below: he goes there.
  const messages = bob.page.locator("#messages");
  await until("Bob has read all", async () => {
    await messages.evaluate((list) => list.scrollTo(0, list.scrollHeight));
    return !(await bob.page.title()).startsWith("(");
  });
}

async function screenshot(page) {
  mkdirSync(join(ROOT, "docs"), { recursive: true });
  await page.screenshot({ path: join(ROOT, "docs/screenshot.png") });
  step("wrote docs/screenshot.png");
}

async function conversation(ada, bob) {
  const port = await freePort();
  const url = `http://127.0.0.1:${port}/`;
  const data = join(folder, "data");
  let server = await startServer(port, data);
  try {
    step("two people come in and talk");
    await Promise.all([ada.comeIn(url), bob.comeIn(url)]);
    await ada.talkTo("Bob");
    await ada.say("Coffee at three?");
    await bob.open("Ada");
    await bob.sees("Coffee at three?");
    const talk = ["Coffee at three?", "Gladly. The place by the river?", "Yes! I'll keep the window table ☕", "See you there"];
    for (const [index, text] of talk.entries()) {
      if (index > 0) await (index % 2 ? bob : ada).say(text);
      await Promise.all([ada.sees(text), bob.sees(text)]);
    }
    assert.deepEqual(await agree(ada, bob, talk), talk);

    step("the server is killed while both write");
    const [fromAda, fromBob] = ["Ada", "Bob"].map((name) => Array.from({ length: MESSAGES_EACH }, (_, index) => `${name} ${index}`));
    const write = async (person, texts) => { for (const text of texts) await person.say(text); };
    const writing = Promise.all([write(ada, fromAda), write(bob, fromBob)]);
    await bob.sees("Ada 5");
    await server.kill("SIGKILL");
    await Promise.all([ada.disconnected(), bob.disconnected(), writing]);
    const offline = ["written while the server was away"];
    await write(ada, offline);
    await ada.sees(offline[0]);
    assert.equal((await ada.lines()).at(-1).seq, undefined, "shown, but not yet stored");

    step("the server comes back, and so do both");
    server = await startServer(port, data);
    await Promise.all([ada.connected(), bob.connected()]);
    const all = [...talk, ...fromAda, ...fromBob, ...offline];
    const order = await agree(ada, bob, all, RECONNECTED_MS_MAX);
    assertOrderOfEach(order, talk, [...fromAda, ...offline], fromBob);

    step("a page is loaded anew and still knows who it is");
    const link = await linkOf(bob.page);
    await bob.page.reload();
    await bob.connected();
    await bob.open("Ada");
    await scrollBack(bob, all.length);
    assert.deepEqual(await agree(ada, bob, all), order);

    step("an answer is lost on the way, so that what is stored is sent again");
    link.deaf = true;
    await bob.say("stored, but not told so");
    await ada.sees("stored, but not told so");
    await link.cut();
    await bob.disconnected();
    await bob.connected();
    all.push("stored, but not told so");
    order.push("stored, but not told so");
    assert.deepEqual(await agree(ada, bob, all), order);

    step("a send is refused, the page is loaded anew, and it is sent again");
    link.refuses = true;
    await bob.say("refused at first");
    await until("it is said to be refused", async () => /Not sent: not now/.test(await bob.message("refused", "").locator(".refused").textContent()));
    await bob.page.reload();
    await bob.connected();
    await bob.open("Ada");
    link.refuses = false;
    await bob.page.getByRole("button", { name: "Try again" }).click();
    await ada.sees("refused at first");
    all.push("refused at first");
    order.push("refused at first");
    await scrollBack(bob, all.length);
    assert.deepEqual(await agree(ada, bob, all), order);

    step("a message is unsent, the page is left, and both come back");
    await server.kill("SIGKILL");
    await ada.disconnected();
    await ada.say("kept over a reload");
    await ada.page.reload().then(() => assert.fail("nobody should have answered"), () => {});
    server = await startServer(port, data);
    // The browser may still be on its way to its own error page, which would interrupt a first try.
    await until("the page is there again", () => ada.page.goto(url).then(() => true, () => false));
    await Promise.all([ada.connected(), bob.connected()]);
    await bob.sees("kept over a reload");
    await ada.open("Bob");
    await scrollBack(ada, all.length + 1);
    assert.deepEqual(await agree(ada, bob, [...all, "kept over a reload"]), [...order, "kept over a reload"]);

    const document = await fetch(`${url}v1/asyncapi.json`).then((response) => response.text());
    const knows = (type) => document.includes(`"${type}"`);
    for (const type of ["receipt.read", "search", "user.block", "upload.create"]) if (!knows(type)) step(`left out, since this server does not know it: ${type}`);
    await bob.open("Ada");
    await changeMessages(ada, bob);
    await seeEachOther(ada, bob);
    if (knows("upload.create")) await files(ada, bob);
    await useGroup(ada, bob, knows);
    if (knows("receipt.read")) await receipts(ada, bob);
    if (knows("search")) await search(ada, bob, "Ada 3");
    if (knows("user.block")) await block(ada, bob);

    step("a page that speaks another version is told to be loaded anew");
    const other = new Person("Olga", await ada.page.context().newPage());
    await other.page.route("**/app.js", async (route) => {
      const response = await route.fetch();
      await route.fulfill({ response, body: (await response.text()).replace("caffis.chat.v1", "caffis.chat.v9") });
    });
    await other.page.goto(url);
    await other.page.getByLabel("Your name").fill(other.name);
    await other.page.getByRole("button", { name: "Come in" }).click();
    await until("it is told", async () => (await other.state()) === "Please reload");
    await other.page.close();

    step("on a phone");
    await ada.page.setViewportSize({ width: 360, height: 640 });
    await ada.isTidy();
    await ada.page.getByRole("button", { name: "Back to the conversations" }).click();
    await until("the rooms are shown", () => ada.row("Bob").isVisible());
    await ada.isTidy();

    step("somebody else signs in at the same window, and finds nothing of hers");
    await ada.open("Bob");
    await ada.page.locator("#text").fill("a secret draft");
    await ada.page.getByRole("button", { name: "Back to the conversations" }).click();
    await ada.page.getByRole("button", { name: "Sign out" }).click();
    ada.name = "Cleo"; // until the next server
    await ada.signIn();
    await ada.talkTo("Bob");
    await ada.page.getByRole("button", { name: "Back to the conversations" }).click();
    await until("Cleo has one room", async () => (await ada.page.locator("#rooms > li").count()) === 1);
    assert.equal(await ada.page.locator("#text").inputValue(), "");
    assert.equal(await ada.page.locator("#messages > li[data-seq]:not(.system)").count(), 0);

    step(`${all.length + 1} messages on both pages, two kills, reloads, one lost answer, and what one does in a chat`);
    await Promise.all([ada.leave(), bob.leave()]);
  } finally {
    await server.kill("SIGTERM");
  }
}

async function main() {
  // It starts meanwhile.
  const store = startStore(join(folder, "objects"));
  store.catch(() => {}); // told below, where it is waited for
  const options = { executablePath: BROWSER, args: BROWSER_FLAGS, colorScheme: "light", viewport: { width: 1100, height: 720 } };
  // A profile each: nothing is shared between the two but the server.
  const windows = await Promise.all(["ada", "bob"].map((name) => chromium.launchPersistentContext(join(folder, name), options)));
  if (PAGE) await Promise.all(windows.map((window) => pageFrom(PAGE, window)));
  const [ada, bob] = windows.map((window, index) => new Person(["Ada", "Bob"][index], window.pages()[0]));
  try {
    if (!process.argv.includes("--objects")) await conversation(ada, bob);
    ada.name = "Ada";
    await Promise.all([ada, bob].map((person) => person.page.setViewportSize(options.viewport)));
    await filesInAnObjectStore(ada, bob, await store, join(folder, "data-of-objects"));
    for (const person of [ada, bob]) assert.deepEqual(person.complaints, [], `${person.name}'s page complained`);
    step("passed");
  } catch (error) {
    await Promise.all([ada, bob].map((person) => person.page.screenshot({ path: join(ROOT, `.check/browser-${person.name}.png`) }).catch(() => {})));
    throw error;
  } finally {
    await Promise.all(windows.map((window) => window.close()));
    await store.then((it) => it.end(), () => {});
    rmSync(folder, { recursive: true, force: true });
  }
}

await main().then(() => process.exit(0), (error) => {
  console.error(`browser: FAILED: ${error.stack}`);
  process.exit(1);
});
