/** Sends one leg of a request to a server whose turn it is, and to the next one where that can do no harm. */

import type { IncomingMessage } from 'node:http';
import { HttpError } from '../http-error.ts';
import type { Backend, BackendRequest } from './backend.ts';
import { BackendError } from './backend.ts';
import type { ProxyMetrics } from './proxy-metrics.ts';

/** `broken` and `too-slow` requests may have been served. */
export type Retries = 'whatever-happened' | 'if-nobody-saw-it';

export type LegAnswer = Readonly<{ backend: Backend; answer: IncomingMessage }>;

/**
 * The first answer that is final, or the last one if none is: a server that is full (429) or draining (503) has done nothing, and another may.
 * `whatever-happened` also goes on behind a broken connection and a 5xx. Throws BACKEND_FAILED, BACKEND_TOO_SLOW, or the signal's reason.
 */
export async function sendLeg(
  backends: readonly Backend[],
  request: BackendRequest,
  retries: Retries,
  metrics: ProxyMetrics,
): Promise<LegAnswer> {
  let last: LegAnswer | null = null;
  let failure: HttpError | null = null;
  for (const backend of backends) {
    const startedAt = performance.now();
    let answer: IncomingMessage;
    try {
      answer = await backend.send(request);
    } catch (error) {
      if (!(error instanceof BackendError)) throw error;
      metrics.leg(backend.role, backend.url, error.kind, performance.now() - startedAt);
      failure = failureOf(backend, error);
      if (error.kind !== 'unreachable' && retries === 'if-nobody-saw-it') throw failure;
      continue;
    }
    const status = answer.statusCode ?? 0;
    metrics.leg(backend.role, backend.url, status, performance.now() - startedAt);
    last?.answer.resume();
    last = { backend, answer };
    const isOther = status === 429 || status === 503 || (status >= 500 && retries === 'whatever-happened');
    if (!isOther) return last;
  }
  // What a server said tells more than that another could not be reached.
  if (last !== null) return last;
  throw failure!;
}

export function failureOf({ role, url }: Backend, error: unknown): HttpError {
  const { message } = error as Error;
  const isSlow = error instanceof BackendError && error.kind === 'too-slow';
  return HttpError.of(isSlow ? 'BACKEND_TOO_SLOW' : 'BACKEND_FAILED', null, role, url, message);
}
