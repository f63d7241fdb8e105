/** What a rank uses while it is measured: its thread, and the memory that rows take on their way. */

import { rowShape } from '../../capture/row-shape.ts';
import type { CaptureLiveCounts } from '../../contract/capture.ts';
import type { ModelConfig } from '../../contract/config.ts';
import type { DeadlineCounts } from '../../contract/device.ts';
import { HeldRowsPeak, type HeldRows } from '../held-rows-peak.ts';
import { ThreadMeter, type ThreadUsage } from './thread-meter.ts';

export type RankUsage = ThreadUsage &
  Readonly<{
    /** Bytes of the device's buffers that capture needs. */
    deviceRowBytes: number;
    /** The most bytes of row buffers that were with the engine at once, or on their way there and back. */
    rowBytesInFlight: number;
    /** The most that the worker half held, in bytes. */
    held: HeldRows;
    /** Of the device; `null`: it keeps to none. */
    deadlines: DeadlineCounts | null;
  }>;

export class RankMeter {
  readonly #thread = new ThreadMeter();
  readonly #held: HeldRowsPeak;
  #rowBytesInFlight = 0;

  constructor(model: ModelConfig) {
    this.#held = new HeldRowsPeak(rowShape(model).bytesPerRow);
  }

  afterStep(numTokens: number, rowBytesInFlight: number, count: () => CaptureLiveCounts): void {
    this.#rowBytesInFlight = Math.max(this.#rowBytesInFlight, rowBytesInFlight);
    this.#held.afterStep(numTokens, count);
  }

  /** What was used since the last call, or the start. */
  async take(deviceRowBytes: number, now: CaptureLiveCounts): Promise<Omit<RankUsage, 'deadlines'>> {
    const rowBytesInFlight = this.#rowBytesInFlight;
    this.#rowBytesInFlight = 0;
    const held = this.#held.take(now);
    return { ...(await this.#thread.take()), deviceRowBytes, rowBytesInFlight, held };
  }
}

/** Of several ranks: sums, and the longest pause of any. A sum of peaks that were not at one time is never too low. */
export function sumOfUsage(ranks: readonly RankUsage[]): RankUsage {
  return ranks.reduce((a, b) => ({
    cpuUs: a.cpuUs === null || b.cpuUs === null ? null : a.cpuUs + b.cpuUs,
    gcPauses: {
      count: a.gcPauses.count + b.gcPauses.count,
      longestMs: Math.max(a.gcPauses.longestMs, b.gcPauses.longestMs),
    },
    deviceRowBytes: a.deviceRowBytes + b.deviceRowBytes,
    rowBytesInFlight: a.rowBytesInFlight + b.rowBytesInFlight,
    held: sumOfHeld(a.held, b.held),
    deadlines: sumOfDeadlines([a.deadlines, b.deadlines]),
  }));
}

/** Of several halves. */
export function sumOfHeld(a: HeldRows, b: HeldRows): HeldRows {
  const cached = a.cached === null && b.cached === null ? null : (a.cached ?? 0) + (b.cached ?? 0);
  return { requests: a.requests + b.requests, cached };
}

/** `null`: none of them is of a device that keeps to deadlines. */
export function sumOfDeadlines(counts: readonly (DeadlineCounts | null)[]): DeadlineCounts | null {
  const kept = counts.filter((deadlines) => deadlines !== null);
  if (kept.length === 0) return null;
  return {
    count: kept.reduce((sum, { count }) => sum + count, 0),
    overrun: kept.reduce((sum, { overrun }) => sum + overrun, 0),
    longestMs: Math.max(...kept.map(({ longestMs }) => longestMs)),
  };
}
