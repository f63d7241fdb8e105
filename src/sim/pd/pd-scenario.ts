/** What a scenario with a prefill engine in front has beyond that of one engine. */

import type { EngineConfig } from '../../contract/config.ts';
import { RoutedExpertsError } from '../../contract/errors.ts';
import { validateEngineConfig } from '../../engine/engine-config.ts';
import type { Fault } from '../fault.ts';
import { pdRowsWays, type PdRows } from '../../handover/handed-rows.ts';

export const LOAD_FAILURES = ['recompute', 'fail'] as const;

/** Ticks and shares of the messages between the two engines. A lost message is never delivered. */
export type LinkTiming = Readonly<{
  delay: number;
  jitter: number;
  slowShare: number;
  slowFactor: number;
  lostShare: number;
  /** Of answers whose digest does not fit when they arrive. */
  corruptShare: number;
}>;

/** How the proxy's leg to the prefill engine fails: a lost answer is noticed when the proxy's patience is over. */
export type ProxyFailure = Readonly<{
  /** Of the prefill engine's answers. */
  lostShare: number;
  /** How long the proxy waits for an answer before it sends the request to the decode engine without KV. */
  patienceTicks: number;
}>;

export type PdScenario = Readonly<{
  /** The prefill engine. */
  engine: EngineConfig;
  /** Absent: one. */
  numRanks?: number;
  queueDepth: number;
  ringDepth: number;
  faults: readonly Fault[];
  rows: PdRows;
  onLoadFailure: (typeof LOAD_FAILURES)[number];
  /** Ids of the requests that go to the decode engine alone. */
  direct: readonly string[];
  /** Ids of the requests whose rows nobody asks the prefill engine for. Absent: none. */
  rowless?: readonly string[];
  /** For how long blocks are kept to be read, and how long a load may take. */
  leaseTicks: number;
  loadTicks: number;
  link: LinkTiming;
  /** Between the question for KV and the read of its blocks: others are read, rows are summed. Absent: 0. */
  readTicks?: number;
  /** Absent: it never fails. */
  proxy?: ProxyFailure;
}>;

const isAtLeast0 = (value: unknown): boolean => typeof value === 'number' && value >= 0;

/** `engine`: the decode engine. Throws what `bad` makes, or BAD_VALUE for a field of an engine's configuration. */
export function checkPdScenario(pd: PdScenario, engine: EngineConfig, bad: (problem: string) => Error): void {
  if (typeof pd !== 'object' || pd === null) throw bad('"pd" is no object');
  for (const name of ['queueDepth', 'ringDepth', 'leaseTicks', 'loadTicks'] as const) {
    if (!Number.isInteger(pd[name]) || pd[name] < 1) throw bad(`"pd.${name}" is not a whole number ≥ 1`);
  }
  for (const name of ['faults', 'direct', 'rowless'] as const) {
    if (!Array.isArray(name === 'rowless' ? (pd.rowless ?? []) : pd[name])) throw bad(`"pd.${name}" is no list`);
  }
  if (!pdRowsWays.includes(pd.rows)) throw bad(`"pd.rows" is none of ${pdRowsWays.join(', ')}`);
  if (!LOAD_FAILURES.includes(pd.onLoadFailure)) throw bad(`"pd.onLoadFailure" is none of ${LOAD_FAILURES.join(', ')}`);
  const hasWrong = typeof pd.link !== 'object' || Object.values(pd.link).some((value) => !isAtLeast0(value));
  if (hasWrong) throw bad('"pd.link" holds something that is no number ≥ 0');
  const { numRanks = 1, readTicks = 0, proxy = { lostShare: 0, patienceTicks: 0 } } = pd;
  if (!Number.isInteger(numRanks) || numRanks < 1) throw bad('"pd.numRanks" is not a whole number ≥ 1');
  if (!(readTicks >= 0)) throw bad('"pd.readTicks" is no number ≥ 0');
  if (!(proxy?.lostShare >= 0) || !(proxy.patienceTicks >= 0))
    throw bad('"pd.proxy" holds something that is no number ≥ 0');
  validateEngineConfig(pd.engine);
  const { blockSize } = pd.engine;
  if (blockSize === engine.blockSize) return;
  const wanted = `that of the decode engine, ${engine.blockSize}`;
  throw RoutedExpertsError.of('BAD_VALUE', 'pd.engine.blockSize', blockSize, wanted);
}
