// Files in a real object store, by the two windows of run.mjs.
//
// Decides: the pages bring files to the store and fetch them from there, across origins, and no byte of a file passes
// through the chat: what goes through its port, and from it to the store, is counted on the way. The page's policy names
// the store and nobody else. What is refused (a program that is called a picture, too large, a ticket that ended) is said, and
// nothing that was typed is lost. The chat is killed while a file is under way, and one message comes of it.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { createHmac, randomBytes } from "node:crypto";
import { once } from "node:events";
import { existsSync, mkdirSync, openSync, readFileSync, writeFileSync } from "node:fs";
import { connect, createServer } from "node:net";
import { join } from "node:path";
import { examplesOfTheDocumentation, frontEnd } from "./examples.mjs";
import { RECONNECTED_MS_MAX, ROOT, SERVER, agree, freePort, startServer, step, until } from "./people.mjs";

const WEED = join(ROOT, ".check/seaweedfs-venv/bin/weed");
const [ACCESS_KEY, SECRET_KEY] = ["the-tests", "of-the-tests-and-nobody-else"];
const STARTED_MS_MAX = 60_000;
/** What a picture may have here. */
const IMAGE_BYTES_MAX = 1_000_000;
const PNG = Buffer.from("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==", "base64");

/** A port that is free, and the one 10,000 above it, too: the store's parts speak to each other there. */
async function freePortOfStore() {
  for (;;) {
    const port = await freePort();
    const above = createServer().listen(port + 10_000, "127.0.0.1");
    const isFree = port < 55_536 && await once(above, "listening").then(() => true, () => false);
    above.close();
    if (isFree) return port;
  }
}

/** A store of its own, empty, as tests/support/s3.rs has it. `port`, and `end()`. Begun anew where somebody else takes one of its ports first. */
export async function startStore(folder) {
  assert.ok(existsSync(WEED), "no SeaweedFS; `./check browser` installs it below .check");
  for (let attempt = 1; ; attempt++) {
    try {
      return await startOnce(join(folder, `${attempt}`));
    } catch (error) {
      if (attempt >= 5 || !`${error}`.includes("is not available")) throw error;
    }
  }
}

async function startOnce(folder) {
  mkdirSync(join(folder, "data"), { recursive: true });
  const identity = { name: "chat", credentials: [{ accessKey: ACCESS_KEY, secretKey: SECRET_KEY }], actions: ["Admin", "Read", "Write", "List", "Tagging"] };
  writeFileSync(join(folder, "s3.json"), JSON.stringify({ identities: [identity] }));
  const ports = [];
  while (ports.length < 5) ports.push(await freePortOfStore());
  const [port, master, volume, filer, admin] = ports;
  const log = openSync(join(folder, "log"), "w");
  const store = spawn(WEED, [
    "mini", `-dir=${join(folder, "data")}`, "-ip=127.0.0.1", "-ip.bind=127.0.0.1", `-s3.port=${port}`, `-s3.config=${join(folder, "s3.json")}`,
    `-master.port=${master}`, `-volume.port=${volume}`, `-filer.port=${filer}`, `-admin.port=${admin}`,
    "-master.telemetry=false", "-webdav=false", "-admin.ui=false", "-s3.port.iceberg=0", "-s3.port.lance=0", "-s3.allowedOrigins=", "-filer.allowedOrigins=",
  ], { cwd: folder, stdio: ["ignore", log, log] });
  const ended = new Promise((done) => store.once("exit", done).once("error", done));
  const end = async () => { store.kill("SIGKILL"); await ended; };
  await until("the object store is there", async () => {
    assert.ok(store.exitCode === null && store.pid, `it ended: ${readFileSync(join(folder, "log"))}`);
    return fetch(`http://127.0.0.1:${port}/healthz`).then((response) => response.ok, () => false);
  }, STARTED_MS_MAX).catch(async (error) => { await end(); throw error; });
  return { port, end };
}

/** A way to `to` that counts what goes along it, and that can be stopped in the middle of what is sent. */
async function wayTo(to) {
  const way = { bytes: 0, stopAfter: Infinity, stopped: undefined };
  const listener = createServer((near) => {
    const far = connect(to, "127.0.0.1");
    let sent = 0;
    near.on("data", (piece) => {
      way.bytes += piece.length;
      sent += piece.length;
      if (sent <= way.stopAfter) return;
      near.unpipe(far);
      near.pause();
      way.stopAfter = Infinity;
      way.stopped = () => near.pipe(far);
    });
    far.on("data", (piece) => (way.bytes += piece.length));
    near.pipe(far).pipe(near);
    for (const [one, other] of [[near, far], [far, near]]) one.on("error", () => other.destroy()).on("close", () => other.destroy());
  }).listen(0, "127.0.0.1");
  await once(listener, "listening");
  const origin = `http://127.0.0.1:${listener.address().port}`;
  return Object.assign(way, { origin, close: () => listener.close() });
}

/** The same ticket, but that it ended long ago: signed by who may sign. */
function ended({ fields, ...ticket }) {
  const name = (wanted) => Object.keys(fields).find((it) => it.toLowerCase() === wanted);
  const policy = JSON.parse(Buffer.from(fields[name("policy")], "base64").toString());
  policy.expiration = "2020-01-01T00:00:00Z";
  const said = Buffer.from(JSON.stringify(policy)).toString("base64");
  const [, day, region, service, last] = fields[name("x-amz-credential")].split("/");
  const hmac = (key, text) => createHmac("sha256", key).update(text).digest();
  const key = [day, region, service, last].reduce(hmac, `AWS4${SECRET_KEY}`);
  return { ...ticket, fields: { ...fields, [name("policy")]: said, [name("x-amz-signature")]: hmac(key, said).toString("hex") } };
}

/** Who asks whom for what, from now on, by the origin that is asked. */
function requestsOf(people) {
  const seen = [];
  for (const person of people) person.page.context().on("request", (request) => {
    const { origin, pathname, protocol } = new URL(request.url());
    if (protocol.startsWith("http")) seen.push({ who: person.name, method: request.method(), origin, pathname, request });
  });
  return seen;
}

/** Both come in anew, at a server whose files are in `store`. It keeps the rest in `data`. */
export async function filesInAnObjectStore(ada, bob, store, data) {
  step("files in an object store: made and configured by `storage init`");
  const port = await freePort();
  const [chat, toStore, ofPages, other] = await Promise.all([wayTo(port), wayTo(store.port), wayTo(store.port), frontEnd()]);
  const settings = {
    CAFFIS_S3_ENDPOINT: toStore.origin, CAFFIS_S3_PUBLIC_ENDPOINT: ofPages.origin, CAFFIS_S3_REGION: "us-east-1",
    CAFFIS_S3_ACCESS_KEY: ACCESS_KEY, CAFFIS_S3_SECRET_KEY: SECRET_KEY, CAFFIS_S3_BUCKET_PREFIX: "browser-",
    CAFFIS_ALLOWED_ORIGINS: `${chat.origin},${other.origin}`, CAFFIS_UPLOAD_IMAGE_BYTES: String(IMAGE_BYTES_MAX),
  };
  const init = spawn(SERVER, ["storage", "init"], { env: { ...process.env, CAFFIS_SERVER: undefined, CAFFIS_DATA_DIR: data, ...settings }, stdio: ["ignore", "ignore", "inherit"] });
  assert.deepEqual(await once(init, "exit"), [0, null]);
  let server = await startServer(port, data, settings);
  try {
    const policy = await fetch(`${chat.origin}/`).then(({ headers }) => headers.get("content-security-policy"));
    const allowed = Object.fromEntries(policy.split("; ").map((rule) => [rule.split(" ")[0], rule.split(" ").slice(1)]));
    assert.deepEqual([allowed["connect-src"], allowed["img-src"], allowed["media-src"]], [["'self'", ofPages.origin], ["'self'", "blob:", ofPages.origin], ["'self'", "blob:", ofPages.origin]]);

    const link = { ends: false };
    await ada.page.routeWebSocket(/\/v1\/ws$/, (client) => {
      const server = client.connectToServer();
      server.onMessage((frame) => {
        const { data, ...rest } = JSON.parse(frame);
        client.send(link.ends && data?.fields ? JSON.stringify({ ...rest, data: ended(data) }) : frame);
      });
    });
    await Promise.all([ada.comeIn(chat.origin), bob.comeIn(chat.origin)]);
    await ada.talkTo("Bob");
    await ada.say("I bring some files");
    await bob.open("Ada");
    await bob.sees("I bring some files");

    const tray = (state) => ada.page.locator(`#tray > li.${state}`);
    const inTray = (count) => until(`${count} files are there`, async () => (await tray("there").count()) === count, RECONNECTED_MS_MAX);
    const attach = (name, mimeType, buffer) => ada.page.setInputFiles("#attach-input", { name, mimeType, buffer });
    const picture = (person, text) => until(`${person.name} sees the picture`, () =>
      person.message(text).locator("img").evaluate((image) => image.complete && image.naturalWidth === 1 && image.src));

    step("a picture, a PDF and a voice note");
    const image = Buffer.concat([PNG, randomBytes(600_000)]);
    const pdf = Buffer.concat([Buffer.from("%PDF-1.4\n"), randomBytes(3_000_000), Buffer.from("\n%%EOF\n")]);
    const requests = requestsOf([ada, bob]);
    const before = { chat: chat.bytes, toStore: toStore.bytes, ofPages: ofPages.bytes };
    const took = [];
    /** From the choice of a file until the other has it on the page, and from the press of the key. */
    const bring = async (what, chosen, text, seen) => {
      const began = Date.now();
      await chosen();
      await inTray(1);
      const brought = Date.now();
      await ada.say(text);
      await bob.sees(text);
      await seen();
      took.push(`${what} ${Date.now() - began} ms after it was chosen, ${Date.now() - brought} ms after it was sent`);
    };
    await bring("picture", () => attach("river.png", "image/png", image), "The river", () => picture(bob, "The river"));
    await bring("PDF", () => attach("plan.pdf", "application/pdf", pdf), "The plan", () => bob.shows("#messages .file span", /^plan\.pdf$/));
    const isPlayed = (person) => person.message("Listen").locator("audio[src]").evaluate((audio) => new Promise((done) => {
      audio.preload = "auto";
      [audio.onloadedmetadata, audio.onerror] = [() => done(true), () => done(false)];
      audio.load();
    }));
    await ada.page.getByRole("button", { name: "Record a voice note" }).click();
    await bring("voice note", () => ada.page.getByRole("button", { name: "Stop recording" }).click(), "Listen", async () => assert.ok(await isPlayed(bob), "it can be played"));
    const isPdf = ({ who, pathname }) => who === "Bob" && pathname.startsWith("/browser-chat-files/");
    await bob.message("The plan").locator("a.file").click();
    const download = await until("Bob has fetched the PDF", () => requests.find(isPdf));
    for (const line of took) step(`seen by the other: ${line}`);

    step("no byte of them has passed through the chat");
    const passed = { chat: chat.bytes - before.chat, toStore: toStore.bytes - before.toStore };
    const asked = requests.map(({ who, method, origin, pathname }) => `${who} ${method} ${origin === ofPages.origin ? "store" : origin} ${pathname.split("/")[1]}`);
    assert.deepEqual([...new Set(asked)].sort(), [
      "Ada POST store browser-chat-files", "Ada POST store browser-chat-images", "Ada POST store browser-chat-voice",
      "Bob GET store browser-chat-files", "Bob GET store browser-chat-images", "Bob GET store browser-chat-voice",
    ], "and nobody else was asked for anything");
    assert.equal(asked.filter((one) => one.startsWith("Ada POST")).length, 3, "each file was brought once");
    const fetched = await fetch(download.request.url());
    assert.deepEqual([fetched.headers.get("content-type"), fetched.headers.get("content-disposition").split(";")[0]], ["application/pdf", "attachment"]);
    assert.ok(pdf.equals(Buffer.from(await fetched.arrayBuffer())), "and it is what was brought");
    assert.ok(ofPages.bytes - before.ofPages > 2 * image.length + pdf.length, "there and back");
    for (const [way, bytes] of Object.entries(passed)) assert.ok(bytes < image.length / 4, `${way}: ${bytes} bytes`);
    step(`${image.length + pdf.length} bytes of files; ${passed.chat} bytes by the chat's port, ${passed.toStore} from it to the store`);

    step("the page may speak to this store and to nobody else");
    const elsewhere = await ada.page.evaluate((url) => fetch(url, { mode: "no-cors" }).then(() => "went", ({ name }) => name), `${toStore.origin}/`);
    assert.equal(elsewhere, "TypeError");
    const isOfThis = (complaint) => /Content Security Policy/.test(complaint) && complaint.includes(toStore.origin);
    await until("the browser says why", () => ada.complaints.some(isOfThis));

    step("what is refused is said, and nothing typed is lost");
    const text = () => ada.page.locator("#text").inputValue();
    const failure = (fits) => until(`it is said: ${fits}`, async () => fits.test((await tray("failed").allTextContents()).join()));
    const typed = "Wait, another picture";
    await ada.page.locator("#text").fill(typed);
    await attach("large.png", "image/png", Buffer.concat([PNG, randomBytes(IMAGE_BYTES_MAX)]));
    await failure(/too large/);
    await ada.page.locator("#text").press("Enter");
    assert.equal(await text(), typed, "nothing was sent without its file");
    await ada.page.getByRole("button", { name: "Remove large.png" }).click();

    link.ends = true;
    await attach("late.png", "image/png", PNG);
    await failure(/took too long/);
    assert.equal(await text(), typed);
    link.ends = false;
    await ada.page.locator("#tray").getByRole("button", { name: "Try again" }).click();
    await inTray(1);
    await ada.page.locator("#text").press("Enter");
    await bob.sees(typed);
    await picture(bob, typed);

    await ada.menu("I bring some files", "Reply");
    await attach("holiday.png", "image/png", Buffer.concat([Buffer.from("MZ\x90\x00\x03", "latin1"), randomBytes(500)]));
    await inTray(1);
    await ada.say("From the holidays");
    const refused = ada.message("From the holidays", "");
    await until("it is said to be refused", async () => /Not sent: .*not of the type that its name says/.test(await refused.locator(".refused").textContent()));
    await refused.getByRole("button", { name: "Write anew" }).click();
    await until("the words are back", async () => (await text()) === "From the holidays");
    await ada.shows("#context-text", /^Reply to Ada: I bring some files$/);
    await ada.page.locator("#text").press("Enter");
    await bob.sees("From the holidays");

    step("the chat is killed while a file is under way: it arrives, and one message comes of it");
    ofPages.stopAfter = 200_000;
    await attach("bridge.png", "image/png", image);
    await until("the file is under way", () => ofPages.stopped);
    await server.kill("SIGKILL");
    await Promise.all([ada.disconnected(), bob.disconnected()]);
    ofPages.stopped();
    await inTray(1);
    await ada.say("The bridge");
    await ada.sees("The bridge");
    assert.equal((await ada.lines()).at(-1).seq, undefined, "shown, but not yet stored");
    server = await startServer(port, data, settings);
    await Promise.all([ada.connected(), bob.connected()]);
    await picture(bob, "The bridge");
    const all = ["I bring some files", "The river", "The plan", "Listen", typed, "From the holidays", "The bridge"];
    assert.deepEqual(await agree(ada, bob, all, RECONNECTED_MS_MAX), all);

    step("a page that is loaded anew shows them");
    await ada.page.reload();
    await ada.connected();
    await ada.open("Bob");
    await picture(ada, "The river");
    await picture(ada, "The bridge");
    ada.complaints = ada.complaints.filter((complaint) => !isOfThis(complaint));

    await ada.page.goto(other.origin);
    await examplesOfTheDocumentation(ada.page, chat.origin, join(data, "examples"));
    await Promise.all([ada.leave(), bob.leave()]);
  } finally {
    await server.kill("SIGTERM");
    for (const way of [chat, toStore, ofPages, other]) way.close();
  }
}
