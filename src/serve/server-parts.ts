/** Helpers that the server and the proxy both start and end with. */

import { readFileSync } from 'node:fs';

/** Resolves with `done`, or after `ms`. */
export async function within(ms: number, done: Promise<unknown>): Promise<void> {
  const { promise: tooLong, resolve } = Promise.withResolvers<void>();
  const timer = setTimeout(resolve, ms);
  await Promise.race([done, tooLong]);
  clearTimeout(timer);
}

/** The version of this package. */
export function version(): string {
  const file = readFileSync(new URL('../../package.json', import.meta.url), 'utf8');
  return (JSON.parse(file) as { version: string }).version;
}
