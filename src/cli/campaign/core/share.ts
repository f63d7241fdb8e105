/** A share of a campaign's shards: every n-th of them, so that each share has some of every series. */

/** `index` counts from 0; it is shown from 1 on. */
export type Share = Readonly<{ index: number; count: number }>;

export const WHOLE: Share = { index: 0, count: 1 };

const MOST_SHARES = 100_000;

/** Reads `2/8`. Null for anything else. */
export function parseShare(text: string): Share | null {
  const [, given, of] = /^(\d+)\/(\d+)$/.exec(text) ?? [];
  const [index, count] = [Number(given) - 1, Number(of)];
  return index >= 0 && index < count && count <= MOST_SHARES ? { index, count } : null;
}

export function showShare({ index, count }: Share): string {
  return `${index + 1}/${count}`;
}

export function isOfShare(shard: number, { index, count }: Share): boolean {
  return shard % count === index;
}
