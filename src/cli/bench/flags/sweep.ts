/**
 * `--sweep <parameter>=<values>`: the same bench once for each value of one flag, all else equal, so that the cost can
 * be seen to grow.
 */

import { InvalidArgumentError } from 'commander';
import { RoutedExpertsError } from '../../../contract/errors.ts';
import { finite, whole } from '../../options.ts';
import type { BenchOptions } from '../bench-options.ts';
import { parseLayersXK, type LayersXK } from './model-flags.ts';

const NAMES = ['requests-running', 'prompt-length', 'layers-x-k', 'opt-in', 'ranks', 'queue-depth'] as const;

export type SweepParameter = (typeof NAMES)[number];

/** The flags that a sweep sets. */
type SweptFlags = Readonly<{
  concurrency?: number;
  workload?: string;
  promptLength?: number;
  layersXK?: LayersXK;
  optIn?: number[];
  ranks?: number;
  queueDepth?: number;
}>;

/** `text`: as it was given. */
type SweepValue = Readonly<{ text: string; flags: SweptFlags }>;

export type Sweep = Readonly<{ parameter: SweepParameter; values: readonly SweepValue[] }>;

type Swept = Readonly<{
  summary: string;
  /** The flags that a value sets; throws InvalidArgumentError. */
  read: (text: string) => SweptFlags;
  /** Flags that say the same, or that leave the value without effect. */
  excludes: readonly string[];
}>;

const MOST_VALUES = 32;

/** The limits are those of the flags that the parameters stand for. */
export const LIMITS: Readonly<
  Record<'concurrency' | 'promptLength' | 'ranks' | 'queueDepth' | 'optIn', (text: string) => number>
> = {
  concurrency: whole(1, 1_000_000),
  promptLength: whole(1, 2 ** 24),
  ranks: whole(1, 16),
  queueDepth: whole(1, 16),
  optIn: finite(0, 1),
};

const PARAMETERS: Readonly<Record<SweepParameter, Swept>> = {
  'requests-running': {
    summary: 'requests in flight (--concurrency), out of twice as many as the largest value',
    read: (text) => ({ concurrency: LIMITS.concurrency(text) }),
    excludes: ['concurrency', 'maxNumSeqs', 'openLoop'],
  },
  'prompt-length': {
    summary: 'tokens of each prompt (--workload fixed --prompt-length)',
    read: (text) => ({ workload: 'fixed', promptLength: LIMITS.promptLength(text) }),
    excludes: ['promptLength', 'workload', 'trace', 'recording'],
  },
  'layers-x-k': {
    summary: 'layers and K of the model, as 36x4 (--layers-x-k)',
    read: (text) => ({ layersXK: parseLayersXK(text) }),
    excludes: ['layersXK', 'recording'],
  },
  'opt-in': {
    summary: 'share of requests that ask for rows (--opt-in)',
    read: (text) => ({ optIn: [LIMITS.optIn(text)] }),
    excludes: ['optIn'],
  },
  ranks: {
    summary: 'worker threads (--ranks)',
    read: (text) => ({ ranks: LIMITS.ranks(text) }),
    excludes: ['ranks'],
  },
  'queue-depth': {
    summary: 'steps in flight (--queue-depth)',
    read: (text) => ({ queueDepth: LIMITS.queueDepth(text) }),
    excludes: ['queueDepth'],
  },
};

/** A line for each parameter, for `--help`. */
export function sweepHelp(): string {
  return NAMES.map((name) => `  ${name.padEnd(16)} ${PARAMETERS[name].summary}`).join('\n');
}

/** Throws InvalidArgumentError. Equal values count once. */
export function parseSweep(text: string): Sweep {
  const [name = '', list] = text.split(/=(.*)/s);
  const parameter = NAMES.find((known) => known === name);
  if (parameter === undefined) {
    throw new InvalidArgumentError(`"${name}" cannot be swept. Give <parameter>=<values>, of: ${NAMES.join(', ')}.`);
  }
  const texts = [...new Set((list ?? '').split(',').map((item) => item.trim()))];
  if (texts.length < 2 || texts.length > MOST_VALUES) {
    throw new InvalidArgumentError(`Give 2 to ${MOST_VALUES} different values, as ${parameter}=a,b,c.`);
  }
  const { read } = PARAMETERS[parameter];
  return { parameter, values: texts.map((item) => ({ text: item, flags: readValue(item, read) })) };
}

function readValue(text: string, read: Swept['read']): SweptFlags {
  try {
    return read(text);
  } catch (error) {
    if (!(error instanceof InvalidArgumentError)) throw error;
    throw new InvalidArgumentError(`"${text}": ${error.message}`);
  }
}

/** Throws BAD_VALUE for a flag that was given beside the sweep and excludes it. `nameOf`: as the user writes it. */
export function checkSweep(
  { parameter }: Sweep,
  isGiven: (flag: string) => boolean,
  nameOf: (flag: string) => string,
): void {
  const flag = PARAMETERS[parameter].excludes.find(isGiven);
  if (flag === undefined) return;
  const advice = `a sweep of another parameter, or leave out ${nameOf(flag)}, which this one excludes`;
  throw RoutedExpertsError.of('BAD_VALUE', '--sweep', parameter, advice);
}

/** The flags of each value. */
export function sweptFlags<F extends Readonly<{ requests?: number; trace?: string }>>(
  { parameter, values }: Sweep,
  flags: F,
): F[] {
  const each = values.map((value) => ({ ...flags, ...value.flags }));
  if (parameter !== 'requests-running' || flags.requests !== undefined || flags.trace !== undefined) return each;
  // Every value serves the same requests.
  const requests = 2 * Math.max(...values.map((value) => value.flags.concurrency!));
  return each.map((one) => ({ ...one, requests }));
}

/** Throws BAD_VALUE for a workload that has fewer requests than shall run at once, or needs more of them at once. */
export function checkRunning({ workload, mode }: Pick<BenchOptions, 'workload' | 'mode'>): void {
  if (mode.kind === 'open') return;
  const { name, requests, minConcurrency } = workload;
  if (minConcurrency > mode.concurrency) {
    throw RoutedExpertsError.of('BAD_VALUE', '--workload', name, 'another one: all requests of this one run at once');
  }
  if (mode.concurrency <= requests.length) return;
  const advice = `values up to ${requests.length}, the requests of ${name} (or raise --requests)`;
  throw RoutedExpertsError.of('BAD_VALUE', '--sweep requests-running', mode.concurrency, advice);
}
