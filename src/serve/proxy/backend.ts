/** One server behind the proxy: requests to it, and whether it is up. */

import type { Agent, ClientRequest, IncomingMessage } from 'node:http';
import * as http from 'node:http';
import * as https from 'node:https';

export type BackendRole = 'prefill' | 'decode';

/** Until a connection must stand. */
const CONNECT_MS = 3000;
const HEALTH_MS = 2000;

/**
 * Why there is no answer. `unreachable`: there was no connection, so no server has seen the request. `broken`: a server
 * may have served the request. `too-slow`: nothing came for too long.
 */
export class BackendError extends Error {
  readonly kind: 'unreachable' | 'broken' | 'too-slow';

  constructor(kind: BackendError['kind'], problem: string) {
    super(problem);
    this.name = 'BackendError';
    this.kind = kind;
  }
}

export type BackendRequest = Readonly<{
  path: string;
  headers: Readonly<Record<string, string>>;
  /** `null`: a GET. */
  body: string | null;
  /** Ends the request, and the body of its answer. */
  signal: AbortSignal;
  /** The longest silence, ms. */
  silenceMs: number;
}>;

export class Backend {
  readonly role: BackendRole;
  /** Its origin. */
  readonly url: string;
  readonly #agent: Agent;
  #isUp = false;

  constructor(role: BackendRole, url: string) {
    this.role = role;
    this.url = url;
    const options = { keepAlive: true };
    this.#agent = url.startsWith('https:') ? new https.Agent(options) : new http.Agent(options);
  }

  /** As of its last health check, or of the last request that did not reach it. */
  get isUp(): boolean {
    return this.#isUp;
  }

  /**
   * Resolves with the head of the answer, whatever its status; the body is read by the caller, and rejects where the
   * connection breaks. Rejects with BackendError, or with the signal's reason.
   */
  send(request: BackendRequest): Promise<IncomingMessage> {
    const { promise, resolve, reject } = Promise.withResolvers<IncomingMessage>();
    const { path, headers, body, signal, silenceMs } = request;
    let isConnected = false;
    const method = body === null ? 'GET' : 'POST';
    const length = body === null ? {} : { 'content-length': String(Buffer.byteLength(body)) };
    const { request: open } = this.url.startsWith('https:') ? https : http;
    const outgoing: ClientRequest = open(this.url + path, {
      method,
      agent: this.#agent,
      headers: { ...headers, ...length },
      signal,
    });
    const timer = setTimeout(() => {
      outgoing.destroy(new BackendError('unreachable', `no connection within ${CONNECT_MS / 1e3} s`));
    }, CONNECT_MS);
    const onConnect = (): void => {
      isConnected = true;
      clearTimeout(timer);
    };
    outgoing.once('socket', (socket) => {
      if (socket.connecting) socket.once('connect', onConnect);
      else onConnect();
    });
    outgoing.setTimeout(silenceMs, () => {
      outgoing.destroy(new BackendError('too-slow', `nothing came for ${silenceMs / 1e3} s`));
    });
    outgoing.once('response', resolve);
    outgoing.on('error', (error: Error) => {
      clearTimeout(timer);
      if (signal.aborted || error instanceof BackendError) {
        reject(error);
        return;
      }
      const kind = isConnected ? 'broken' : 'unreachable';
      if (kind === 'unreachable') this.#isUp = false;
      reject(new BackendError(kind, error.message));
    });
    outgoing.end(body ?? undefined);
    return promise;
  }

  /** Asks whether the server takes requests. Never rejects. */
  async check(stop: AbortSignal): Promise<void> {
    const signal = AbortSignal.any([stop, AbortSignal.timeout(HEALTH_MS)]);
    try {
      const answer = await this.send({ path: '/health', headers: {}, body: null, signal, silenceMs: HEALTH_MS });
      answer.resume();
      this.#isUp = answer.statusCode === 200;
    } catch {
      this.#isUp = false;
    }
  }

  close(): void {
    this.#agent.destroy();
  }
}
