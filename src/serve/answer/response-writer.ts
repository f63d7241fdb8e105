/** Writes an answer to its socket no faster than the client reads it. */

import type { ServerResponse } from 'node:http';

/**
 * Writes the parts, ends the response, and resolves when the socket has taken all of it, or when it is gone;
 * `response.writableFinished` tells which. A part is asked for only when the one before it fits the socket's buffer. A
 * client that takes nothing for `stallMs` is cut off.
 */
export async function writeAnswer(
  response: ServerResponse,
  parts: AsyncIterable<string | Uint8Array>,
  stallMs: number,
): Promise<void> {
  for await (const part of parts) {
    if (response.destroyed) return;
    if (!response.write(part)) await settled(response, 'drain', stallMs);
  }
  if (response.destroyed) return;
  response.end();
  if (!response.writableFinished) await settled(response, 'finish', stallMs);
}

/** Resolves at the event, or when the response is closed, as it is after a stall. */
function settled(response: ServerResponse, event: 'drain' | 'finish', stallMs: number): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(() => response.destroy(), stallMs);
    const done = (): void => {
      clearTimeout(timer);
      response.off(event, done);
      response.off('close', done);
      resolve();
    };
    response.once(event, done);
    response.once('close', done);
    if (response.destroyed) done();
  });
}
