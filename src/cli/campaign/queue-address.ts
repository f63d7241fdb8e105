/** Where a queue is, as `--queue` names it. */

import { InvalidArgumentError } from 'commander';

/** Reads `--queue`. Throws InvalidArgumentError unless it is the URL of a Redis. */
export function queueUrl(text: string): string {
  const url = URL.parse(text);
  if (url !== null && /^rediss?:$/.test(url.protocol) && url.hostname !== '') return text;
  throw new InvalidArgumentError('Give redis://host:port, or redis://host:port/db.');
}

/** The URL without its password, for messages. */
export function queueAddress(url: string): string {
  const { protocol, host, pathname } = new URL(url);
  return `${protocol}//${host}${pathname}`;
}
