// Decides when to connect, give up and try again. No socket, clock or chance is in here: they come
// with each input, and what to do leaves as effects.
//
// Invariants: at most one socket is open. A request is answered at most once; those in flight when a
// connection ends are forgotten, and chat.ts asks again after `ready`.
//
// Next: chat.ts.
import { UNANSWERED, type Data, type Frame, type Request } from "./protocol";

export interface Connection {
  phase: "waiting" | "opening" | "ready" | "stopped";
  /** When this phase is over, in ms: the next attempt, or the end of hope for an answer. */
  dueAt: number; refreshAt: number; readyAt: number; silenceMs: number;
  /** How far the server's clock is ahead of ours. */
  skewMs: number;
  attempt: number; retryAfterMs?: number; code: number; nextId: number; inFlight: ReadonlyMap<number, Request>;
}
export type Happening =
  | { on: "time" } | { on: "wake" } | { on: "closed"; code: number } | { on: "frame"; frame: Frame } | { on: "request"; request: Request };
export type Input = Happening & { now: number; random: number };
export type Effect =
  | { do: "open"; freshToken: boolean } | { do: "refresh token" } | { do: "close" }
  | { do: "send"; request: Request; id?: number }
  | { do: "ready"; data: Data } | { do: "event"; frame: Frame } | { do: "reply"; request: Request; frame: Frame };
type Step = [Connection, Effect[]];

const OPEN_MS_MAX = 10_000;
const LIVED_MS_MIN = 30_000;
const BACKOFF_MS_MIN = 1_000;
const BACKOFF_MS_MAX = 30_000;
const REFRESH_BEFORE_MS = 60_000;
const NONE: ReadonlyMap<number, Request> = new Map();

export const idle: Connection = {
  phase: "waiting", dueAt: 0, refreshAt: Infinity, readyAt: Infinity, silenceMs: 35_000, skewMs: 0, attempt: 0, code: 0, nextId: 1, inFlight: NONE,
};

export function step(state: Connection, input: Input): Step {
  if (state.phase === "stopped") return [state, []];
  switch (input.on) {
    case "closed": return lost(state, input.code, input);
    case "request": return state.phase === "ready" || input.request.type === "auth" ? ask(state, input.request) : [state, []];
    case "frame": return heard({ ...state, dueAt: input.now + state.silenceMs }, input.frame, input);
    case "wake": return state.phase === "waiting" ? open(state, input.now) : [state, []];
    case "time":
      if (input.now >= state.dueAt) return state.phase === "waiting" ? open(state, input.now) : lost(state, 4201, input);
      return input.now >= state.refreshAt ? [{ ...state, refreshAt: Infinity }, [{ do: "refresh token" }]] : [state, []];
  }
}

function open(state: Connection, now: number): Step {
  return [{ ...state, phase: "opening", dueAt: now + OPEN_MS_MAX }, [{ do: "open", freshToken: state.code === 4202 }]];
}

function ask(state: Connection, request: Request): Step {
  // The first of its kind has an id, so that a server that does not know it says so; then none is needed.
  if (UNANSWERED.has(request.type) && [...state.inFlight.values()].some(({ type }) => type === request.type)) return [state, [{ do: "send", request }]];
  const inFlight = new Map(state.inFlight).set(state.nextId, request);
  return [{ ...state, nextId: state.nextId + 1, inFlight }, [{ do: "send", request, id: state.nextId }]];
}

function heard(state: Connection, frame: Frame, input: Input): Step {
  const { data = {}, error } = frame;
  const id = frame.id ?? 0;
  const request = state.inFlight.get(id);
  const inFlight = new Map([...state.inFlight].filter(([one]) => one !== id));
  switch (frame.type) {
    case "ping": return [state, [{ do: "send", request: { type: "pong" } }]];
    case "server.draining": return [{ ...state, retryAfterMs: data.reconnect_after_ms }, []];
    case "server.closing": return [{ ...state, retryAfterMs: data.retry_after_ms }, []];
    case "ready": {
      const silenceMs = data.limits ? data.limits.ping_interval_ms + data.limits.ping_timeout_ms : state.silenceMs;
      const skewMs = data.server_time ? Date.parse(data.server_time) - input.now : 0;
      const times = { readyAt: input.now, silenceMs, skewMs, dueAt: input.now + silenceMs, refreshAt: refreshAt(data, input.now, skewMs) };
      return [{ ...state, ...times, phase: "ready", inFlight, code: 0, retryAfterMs: undefined }, [{ do: "ready", data }]];
    }
    case "ack": case "error":
      if (request?.type === "auth.refresh") return [{ ...state, inFlight, refreshAt: refreshAt(data, input.now, state.skewMs) }, []];
      // Not let in for now. A refusal for good needs no rule here: the close code says it.
      if (request?.type === "auth") return error?.temporary ? lost({ ...state, retryAfterMs: error.retry_after_ms }, 4100, input) : [state, []];
      return [{ ...state, inFlight }, request ? [{ do: "reply", request, frame }] : []];
    default: return [state, [{ do: "event", frame }]];
  }
}

/** By the server's clock, since ours may be wrong. Never told: the server closes with 4202 in time. */
function refreshAt({ token_expires_at }: Data, now: number, skewMs: number): number {
  if (!token_expires_at) return Infinity;
  const leftMs = Date.parse(token_expires_at) - skewMs - now;
  return now + Math.max(BACKOFF_MS_MIN, leftMs - REFRESH_BEFORE_MS, leftMs / 2);
}

/** Chooses by the range of the close code alone; one that is not ours counts as 41xx. */
function lost(state: Connection, code: number, { now, random }: Input): Step {
  const over = { ...state, code, inFlight: NONE, refreshAt: Infinity, readyAt: Infinity, retryAfterMs: undefined };
  if (code >= 4000 && code < 4100) return [{ ...over, phase: "stopped", dueAt: Infinity }, [{ do: "close" }]];
  const lived = now - state.readyAt >= LIVED_MS_MIN;
  const attempt = lived ? 0 : state.attempt;
  const jitterMs = random * Math.min(BACKOFF_MS_MAX, BACKOFF_MS_MIN * 2 ** attempt);
  // Told when to come, everybody was told the same, so the second after it is spread.
  const toldMs = state.retryAfterMs === undefined ? jitterMs : state.retryAfterMs + random * BACKOFF_MS_MIN;
  const waitMs = lived && code >= 4200 && code < 4300 ? 0 : toldMs;
  return [{ ...over, phase: "waiting", attempt: attempt + 1, dueAt: now + waitMs }, [{ do: "close" }]];
}
