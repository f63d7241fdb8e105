/** What goes wrong in a virtual cluster, and how that is written. */

import { RoutedExpertsError } from '../../contract/errors.ts';

/** Times in µs of virtual time. `text`: as it was given. */
export type ClusterFault = Readonly<{ text: string }> &
  (
    | Readonly<{ kind: 'slow-rank'; rank: number; factor: number }>
    | Readonly<{ kind: 'dead-rank'; rank: number; at: number }>
    /** A process that is alive and slow has the locks of a node. */
    | Readonly<{ kind: 'held-lock'; node: number; at: number; duration: number }>
    | Readonly<{ kind: 'slow-nic'; node: number; factor: number }>
  );

export const FAULT_FORMS =
  'slow-rank:RANK:FACTOR, dead-rank:RANK@TIME, held-lock:NODE@TIME+TIME or slow-nic:NODE:FACTOR';

const FACTORED = /^(slow-rank|slow-nic):(\d{1,6}):(\d{1,6}(?:\.\d+)?)$/;
const DEAD = /^dead-rank:(\d{1,6})@([\d.]+m?s)$/;
const HELD = /^held-lock:(\d{1,6})@([\d.]+m?s)\+([\d.]+m?s)$/;

/** Throws BAD_VALUE. */
export function parseFault(text: string): ClusterFault {
  const refused = (): RoutedExpertsError =>
    RoutedExpertsError.of('BAD_VALUE', '--fault', text, `${FAULT_FORMS}; a factor > 0; times as 2s or 500ms`);
  const [, kind, number, factor] = FACTORED.exec(text) ?? [];
  if (kind !== undefined) {
    if (!(Number(factor) > 0)) throw refused();
    const place = Number(number);
    return kind === 'slow-rank'
      ? { kind, text, rank: place, factor: Number(factor) }
      : { kind: 'slow-nic', text, node: place, factor: Number(factor) };
  }
  const [, rank, diesAt] = DEAD.exec(text) ?? [];
  if (rank !== undefined) {
    const at = microseconds(diesAt!);
    if (at === null) throw refused();
    return { kind: 'dead-rank', text, rank: Number(rank), at };
  }
  const [, node, from, length] = HELD.exec(text) ?? [];
  const [at, duration] = [from, length].map((time) => (time === undefined ? null : microseconds(time)));
  if (node === undefined || at == null || duration == null) throw refused();
  return { kind: 'held-lock', text, node: Number(node), at, duration };
}

/** Reads `2s` or `500ms`. `null` for anything else. */
export function microseconds(text: string): number | null {
  const [, number, unit] = /^(\d{1,9}(?:\.\d{1,6})?)(ms|s)$/.exec(text) ?? [];
  if (number === undefined) return null;
  return Math.round(Number(number) * (unit === 's' ? 1e6 : 1e3));
}
