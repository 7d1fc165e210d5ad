// Where tokens come from: the Main App, where the server names one, else the demo login. Nothing is kept here.
export interface Token { token: string; user_id: string; name: string }
export interface SignIn { main_app_url: string | null }
/** The one who asks has no session: another try changes nothing. */
export class SignedOut extends Error {}

const MS_MAX = 10_000;

function post(url: string, body: object, more: RequestInit = {}): Promise<Response> {
  const headers = { "content-type": "application/json" };
  return fetch(url, { method: "POST", headers, body: JSON.stringify(body), signal: AbortSignal.timeout(MS_MAX), ...more });
}

async function answer<T>(response: Response): Promise<T> {
  if (response.status === 401) throw new SignedOut();
  if (!response.ok) throw new Error(`the server answered ${response.status}`);
  return (await response.json()) as T;
}

/** A server that is older than this page does not say, and has the demo login. */
export async function howToSignIn(): Promise<SignIn> {
  const response = await fetch("/v1/sign-in", { signal: AbortSignal.timeout(MS_MAX) });
  return response.status === 404 ? { main_app_url: null } : answer<SignIn>(response);
}

/** By the Main App's own cookie, which no script sees: the browser sends it there, and the Main App lets this origin
 * read the answer. */
export async function askMainApp(url: string): Promise<Token> {
  return answer<Token>(await post(`${url}/v1/token`, {}, { credentials: "include" }));
}

/** Whoever says a name is that user. */
export async function askDemo(name: string): Promise<Token> {
  const told = await answer<Omit<Token, "name">>(await post("/v1/demo/login", { name }));
  return { ...told, name };
}
