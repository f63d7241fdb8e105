/**
 * Sends one leg of a request to the server that is next in turn, and to the one after it where a repeat is harmless.
 */

import type { IncomingMessage } from 'node:http';
import { HttpError } from '../http-error.ts';
import type { Backend, BackendRequest } from './backend.ts';
import { BackendError } from './backend.ts';
import type { ProxyMetrics } from './proxy-metrics.ts';
import { readText } from './spliced-answer.ts';

/** `broken` and `too-slow` requests may have been served. */
export type Retries = 'whatever-happened' | 'if-nobody-saw-it';

/** `text`: the body, if it was to be read. */
export type LegAnswer = Readonly<{ backend: Backend; answer: IncomingMessage; text: string | null }>;

export type LegOptions = Readonly<{
  retries: Retries;
  /** Whether a 200 is read to its end here, so that one that breaks off is another's to give. */
  isRead: boolean;
}>;

/**
 * The first answer that is final, or the last one if none is: a server that is full (429) or draining (503) has done
 * nothing, and another may. `whatever-happened` also goes on behind a broken connection and a 5xx, and comes back once
 * to a server that broke one. Throws BACKEND_FAILED, BACKEND_TOO_SLOW, or the signal's reason.
 */
export async function sendLeg(
  backends: readonly Backend[],
  request: BackendRequest,
  { retries, isRead }: LegOptions,
  metrics: ProxyMetrics,
): Promise<LegAnswer> {
  const tries = [...backends];
  let isRetried = false;
  let last: LegAnswer | null = null;
  let failure: HttpError | null = null;
  for (let backend = tries.shift(); backend !== undefined; backend = tries.shift()) {
    const startedAt = performance.now();
    try {
      const answer = await send(backend, request, isRead);
      const status = answer.answer.statusCode ?? 0;
      metrics.leg(backend.role, backend.url, status, performance.now() - startedAt);
      last?.answer.resume();
      last = answer;
      const isOther = status === 429 || status === 503 || (status >= 500 && retries === 'whatever-happened');
      if (!isOther) return last;
    } catch (error) {
      if (!(error instanceof BackendError)) throw error;
      metrics.leg(backend.role, backend.url, error.kind, performance.now() - startedAt);
      failure = failureOf(backend, error);
      if (error.kind !== 'unreachable' && retries === 'if-nobody-saw-it') throw failure;
      // A connection that was kept open can have been closed by a server that is there again.
      if (error.kind !== 'broken' || isRetried) continue;
      isRetried = true;
      tries.push(backend);
    }
  }
  // What a server said tells more than that another could not be reached.
  if (last !== null) return last;
  throw failure!;
}

async function send(backend: Backend, request: BackendRequest, isRead: boolean): Promise<LegAnswer> {
  const answer = await backend.send(request);
  if (!isRead || answer.statusCode !== 200) return { backend, answer, text: null };
  try {
    return { backend, answer, text: await readText(answer) };
  } catch (error) {
    if (request.signal.aborted || error instanceof BackendError) throw error;
    throw new BackendError('broken', (error as Error).message);
  }
}

export function failureOf({ role, url }: Backend, error: unknown): HttpError {
  const { message } = error as Error;
  const isSlow = error instanceof BackendError && error.kind === 'too-slow';
  return HttpError.of(isSlow ? 'BACKEND_TOO_SLOW' : 'BACKEND_FAILED', null, role, url, message);
}
