/** What the thread that runs this uses of the machine: processor time, and pauses for garbage collection. */

import { PerformanceObserver, type PerformanceEntry } from 'node:perf_hooks';
import { setImmediate as nextTurn } from 'node:timers/promises';

export type ThreadUsage = Readonly<{
  /** User and system time of the thread, µs; `null`: this Node has no `process.threadCpuUsage` (it came with 23.9). */
  cpuUs: number | null;
  /** Pauses for garbage collection, and the longest of them in ms; 0 without one. */
  gcPauses: Readonly<{ count: number; longestMs: number }>;
}>;

export class ThreadMeter {
  readonly #observer: PerformanceObserver;
  #pauses: PerformanceEntry[] = [];
  #startedAt: number = performance.now();
  #cpuUs: number | null = threadCpuUs();

  constructor() {
    this.#observer = new PerformanceObserver((list) => this.#pauses.push(...list.getEntries()));
    this.#observer.observe({ entryTypes: ['gc'] });
  }

  /** What was used until the call, since the one before or the start. */
  async take(): Promise<ThreadUsage> {
    const [startedAt, cpuUs] = [this.#startedAt, this.#cpuUs];
    this.#startedAt = performance.now();
    this.#cpuUs = threadCpuUs();
    // Node tells of a pause in the turn behind it, and the observer in the turn behind that.
    await nextTurn();
    await nextTurn();
    const seen = [...this.#pauses, ...this.#observer.takeRecords()];
    const isLater = (entry: PerformanceEntry): boolean => entry.startTime >= this.#startedAt;
    this.#pauses = seen.filter(isLater);
    const pauses = seen.filter((entry) => !isLater(entry) && entry.startTime >= startedAt);
    return {
      cpuUs: cpuUs === null ? null : this.#cpuUs! - cpuUs,
      gcPauses: { count: pauses.length, longestMs: Math.max(0, ...pauses.map(({ duration }) => duration)) },
    };
  }

  close(): void {
    this.#observer.disconnect();
  }
}

function threadCpuUs(): number | null {
  const { threadCpuUsage } = process as Partial<Pick<NodeJS.Process, 'threadCpuUsage'>>;
  if (threadCpuUsage === undefined) return null;
  const { user, system } = threadCpuUsage.call(process);
  return user + system;
}
