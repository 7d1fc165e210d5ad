import assert from "node:assert/strict";
import { test } from "node:test";
import { idle, step, type Connection, type Effect, type Happening } from "../src/connection";
import { uuid7, type Data, type Frame, type Request } from "../src/protocol";

const AUTH: Request = { type: "auth", data: { token: "t", device_id: "d", client: { name: "test", version: "1" } } };
const LIST: Request = { type: "rooms.list", data: {} };
const LIMITS = { ping_interval_ms: 25_000, ping_timeout_ms: 10_000 };

/** Steps through `all` and keeps what came out; `at` is the clock. */
class Run {
  at = 1_000_000;
  random = 0.5;
  state: Connection = idle;
  effects: Effect[] = [];
  on(...all: Happening[]): this {
    for (const happening of all) {
      const [state, effects] = step(this.state, { ...happening, now: this.at, random: this.random });
      [this.state, this.effects] = [state, effects];
    }
    return this;
  }
  after(ms: number): this {
    this.at += ms;
    return this;
  }
  get waitMs(): number {
    return this.state.dueAt - this.at;
  }
  did = (): string[] => this.effects.map((effect) => effect.do);
}
const frame = (type: string, more: Partial<Frame> = {}): Happening => ({ on: "frame", frame: { type, ...more } });
const request = (request: Request): Happening => ({ on: "request", request });
const opening = () => new Run().on({ on: "time" }, request(AUTH));
const ready = (data: Data = { limits: LIMITS }) => opening().on(frame("ready", { id: 1, data }));

test("connects at once, authenticates first, and is ready when told so", () => {
  const run = new Run().on({ on: "time" });
  assert.deepEqual(run.effects, [{ do: "open", freshToken: false }]);
  assert.deepEqual(run.on(request(LIST)).effects, [], "nothing before auth");
  assert.deepEqual(run.on(request(AUTH)).effects, [{ do: "send", request: AUTH, id: 1 }]);
  run.on(frame("ready", { id: 1, data: { epoch: "e1", limits: LIMITS } }));
  assert.equal(run.state.phase, "ready");
  assert.deepEqual(run.effects, [{ do: "ready", data: { epoch: "e1", limits: LIMITS } }]);
});

test("a reply finds its request once, whatever the order", () => {
  const run = ready().on(request(LIST), request({ type: "history.get", data: { room_id: "r", limit: 1 } }));
  run.on(frame("ack", { id: 3, data: { has_more: false } }));
  assert.equal(run.effects[0]?.do === "reply" && run.effects[0].request.type, "history.get");
  assert.deepEqual(run.on(frame("ack", { id: 3 })).effects, [], "a second answer to the same id");
  assert.deepEqual(run.on(frame("error", { id: 2 })).did(), ["reply"]);
  assert.deepEqual(run.on(frame("ack", { id: 99 }), frame("error", { id: null })).effects, []);
});

test("answers ping, passes events on", () => {
  assert.deepEqual(ready().on(frame("ping")).effects, [{ do: "send", request: { type: "pong" } }]);
  assert.deepEqual(ready().on(frame("message.created", { seq: 5 })).did(), ["event"]);
});

test("4000 to 4099 stops for good", () => {
  for (const code of [4000, 4001, 4008, 4099]) {
    const run = ready().after(60_000).on({ on: "closed", code });
    assert.equal(run.state.phase, "stopped");
    assert.deepEqual(run.did(), ["close"]);
    assert.equal(run.state.dueAt, Infinity);
    assert.deepEqual(run.on({ on: "time" }, { on: "wake" }, { on: "closed", code: 4200 }).effects, []);
  }
});

test("4200 to 4299 comes back at once after 30 s, else as 41xx", () => {
  for (const code of [4200, 4201, 4203, 4299]) {
    assert.equal(ready().after(30_000).on({ on: "closed", code }).waitMs, 0);
    assert.ok(ready().after(29_999).on({ on: "closed", code }).waitMs > 0);
  }
});

test("4100 to 4199 and the nameless codes wait, fully jittered, from 1 s doubling to 30 s", () => {
  for (const code of [4100, 4102, 1006, 1001]) {
    const run = ready();
    const waits: number[] = [];
    run.random = 1;
    for (let i = 0; i < 8; i++) {
      waits.push(run.on({ on: "closed", code }).waitMs);
      run.after(run.waitMs).on({ on: "time" });
      assert.deepEqual(run.did(), ["open"]);
    }
    assert.deepEqual(waits, [1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000, 30_000]);
    run.random = 0;
    assert.equal(run.on({ on: "closed", code }).waitMs, 0, "full jitter reaches down to nothing");
  }
});

test("a connection that lived 30 s starts the doubling anew", () => {
  const run = ready().on({ on: "closed", code: 1006 }, { on: "wake" }, request(AUTH), frame("ready", { id: 2 }));
  run.random = 1;
  assert.equal(run.after(30_000).on({ on: "closed", code: 1006 }).waitMs, 1_000);
});

test("comes not before the time that server.closing or server.draining told", () => {
  for (const [type, name] of [["server.closing", "retry_after_ms"], ["server.draining", "reconnect_after_ms"]] as const) {
    const run = ready().on(frame(type, { data: { [name]: 7_000 } }));
    run.random = 0;
    assert.equal(run.on({ on: "closed", code: 4102 }).waitMs, 7_000);
    run.on({ on: "wake" }, request(AUTH), frame("ready", { id: 2 }));
    assert.equal(run.on({ on: "closed", code: 4102 }).waitMs, 0, "told once, used once");
  }
});

test("4202 gets a new token first, and only then", () => {
  const run = ready().after(30_000).on({ on: "closed", code: 4202 }, { on: "time" });
  assert.deepEqual(run.effects, [{ do: "open", freshToken: true }]);
  run.on(request(AUTH), frame("ready", { id: 2 }), { on: "closed", code: 4102 }, { on: "wake" });
  assert.deepEqual(run.effects, [{ do: "open", freshToken: false }]);
});

test("hearing nothing for interval and timeout is a lost connection", () => {
  const run = ready().after(34_999).on({ on: "time" });
  assert.deepEqual(run.effects, []);
  run.on(frame("ping")).after(34_999).on({ on: "time" });
  assert.equal(run.state.phase, "ready", "any frame proves life");
  run.after(1).on({ on: "time" });
  assert.equal(run.state.phase, "waiting");
  assert.deepEqual(run.did(), ["close"]);
});

test("a socket that does not become ready within 10 s is given up", () => {
  assert.equal(opening().after(9_999).on({ on: "time" }).state.phase, "opening");
  assert.deepEqual(opening().after(10_000).on({ on: "time" }).did(), ["close"]);
});

test("auth refused for now comes again; refused for good waits for the code that says so", () => {
  const error = { code: "overloaded", message: "", temporary: true, retry_after_ms: 5_000 };
  const run = opening();
  run.random = 0;
  assert.equal(run.on(frame("error", { id: 1, error })).waitMs, 5_000);
  const refused = opening().on(frame("error", { id: 1, error: { ...error, temporary: false } }));
  assert.deepEqual(refused.effects, []);
  assert.equal(refused.on({ on: "closed", code: 4001 }).state.phase, "stopped");
});

test("a token is refreshed a minute before it ends, by the server's clock", () => {
  const run = ready({ limits: LIMITS, server_time: "2030-01-01T00:00:00.000Z", token_expires_at: "2030-01-01T00:10:00.000Z" });
  run.state = { ...run.state, dueAt: Infinity };
  assert.deepEqual(run.after(539_999).on({ on: "time" }).effects, []);
  assert.deepEqual(run.after(1).on({ on: "time" }).did(), ["refresh token"]);
  assert.deepEqual(run.on({ on: "time" }).effects, [], "asked for once");
  run.on(request({ type: "auth.refresh", data: { token: "t2" } }));
  run.on(frame("ack", { id: 2, data: { token_expires_at: "2030-01-01T00:19:00.000Z" } }));
  run.state = { ...run.state, dueAt: Infinity };
  assert.deepEqual(run.after(540_000).on({ on: "time" }).did(), ["refresh token"]);
});

test("wake cuts a wait short and nothing else", () => {
  assert.deepEqual(ready().on({ on: "closed", code: 1006 }, { on: "wake" }).did(), ["open"]);
  assert.deepEqual(ready().on({ on: "wake" }).effects, []);
});

test("uuid7 is a UUIDv7 of its time", () => {
  const id = uuid7(Date.parse("2030-01-01T00:00:00Z"));
  assert.match(id, /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
  assert.equal(parseInt(id.replace("-", "").slice(0, 12), 16), Date.parse("2030-01-01T00:00:00Z"));
  assert.equal(new Set(Array.from({ length: 1_000 }, () => uuid7(0))).size, 1_000);
});
