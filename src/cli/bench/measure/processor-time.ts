/** What the machine's processors do, from `/proc/stat` (proc_stat(5)). */

import { readFileSync } from 'node:fs';
import type { LoadSample } from '../statistics/other-load.ts';

/** USER_HZ, which is 100 on every architecture that Node runs on. */
const TICK_MS = 10;

/** `null` where there is no such file, or it says something else. */
export function sampleProcessorTime(): LoadSample | null {
  const { user, system } = process.cpuUsage();
  try {
    return parseProcStat(readFileSync('/proc/stat', 'utf8'), (user + system) / 1000);
  } catch {
    return null;
  }
}

/** `ownMs`: processor time of this process, which the file does not tell. */
export function parseProcStat(text: string, ownMs: number): LoadSample | null {
  const runnable = Number(/^procs_running (\d+)$/m.exec(text)?.[1]);
  const ticks = /^cpu +(.*)$/m.exec(text)?.[1]?.split(' ').map(Number) ?? [];
  const [user, nice, system, idle, waiting, interrupts, softInterrupts, stolen] = ticks;
  if (stolen === undefined || [runnable, ...ticks].some(Number.isNaN)) return null;
  const busy = user! + nice! + system! + interrupts! + softInterrupts!;
  const total = busy + idle! + waiting! + stolen;
  return { busyMs: busy * TICK_MS, totalMs: total * TICK_MS, stolenMs: stolen * TICK_MS, ownMs, runnable };
}
