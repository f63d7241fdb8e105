/**
 * What things take in a virtual cluster. A figure that is measured has its machine in `source`; one that is taken from
 * a data sheet is modelled, and so is everything that a cluster makes of it.
 */

import type { ModelConfig } from '../../contract/config.ts';
import { RoutedExpertsError } from '../../contract/errors.ts';

/** Times in µs; of a distribution the quantiles 0, 1/n … 1. */
export type ClusterCosts = Readonly<{
  /** Where the figures come from, in a line. */
  source: string;
  /** A rank's pass alone: `fixedUs + perTokenUs · tokens`, and what is drawn from `restUs` besides. */
  pass: Readonly<{ fixedUs: number; perTokenUs: number; restUs: readonly number[] }>;
  /** The hook's write of a row to the device's buffer. */
  hookPerRowUs: number;
  /** A copy from the device to the host: until it can be read, and its bandwidth. */
  readLatencyUs: number;
  /** The same for a copy that the worker's thread waits for. */
  blockingReadUs: number;
  readGBPerS: number;
  /** `shm-flock`: to open and take the lock; to save a row under it; to read one. */
  lockUs: number;
  savePerRowUs: number;
  loadPerRowUs: number;
  /** A call of the engine core, what a request of the step adds to it, and what its design copies. */
  engineCallUs: number;
  enginePerRequestUs: number;
  engineCopyGBPerS: number;
  /** From an engine's thread to a rank's or back. */
  messageUs: readonly number[];
  /** Of each rank, to other nodes. */
  nicGBPerS: number;
  nicLatencyUs: number;
  /** Of a hidden state, as it goes over the wire. */
  hiddenBytes: number;
}>;

/**
 * What a pass of one rank took besides its modelled time, in µs, at 0, 1, 2 … 100 %: 600 passes on the device `clock`,
 * 16 quiet cores of an Intel Xeon, Node 24.21.0. It is the host's part: messages, the step's input, threads that wake
 * up. The modelled GPU itself has no jitter.
 */
// prettier-ignore
const REST_US = [
  97, 131, 134, 136, 137, 138, 139, 140, 141, 142, 143, 143, 144, 145, 146, 146, 147, 147, 148, 148,
  149, 149, 150, 150, 150, 151, 151, 152, 152, 153, 153, 153, 154, 154, 154, 155, 155, 156, 156, 157,
  157, 158, 158, 159, 159, 159, 160, 160, 160, 161, 161, 162, 162, 163, 164, 164, 165, 165, 166, 166,
  167, 167, 168, 169, 169, 170, 172, 173, 174, 175, 176, 177, 178, 180, 182, 183, 185, 186, 188, 190,
  191, 193, 195, 197, 198, 201, 202, 204, 208, 210, 212, 216, 223, 234, 253, 278, 303, 340, 382, 421,
  1213,
];

/**
 * - `pass`: near gpt-oss-120b on an H100, as the `--step-time` of a bench (`kernels/device/clock/clock-times.ts`)
 * - reads: measured on an H200, from submission to the end of the map: 576 B take 40 µs, 16 MB 430 µs. One that blocks:
 *   what `shm-flock` adds to a pass of one rank, on the clock of those 16 cores.
 * - hook: 42.8 in place of 40.4 µs for 2,048 tokens on the H200 (docs/claims.md, F2)
 * - lock, save, load: POSIX shared memory and `flock` through koffi, rows of gpt-oss-120b (576 B), on two shared cores
 *   of an AMD EPYC
 * - engine: 1.13 µs for a request, in each of two calls a step, on those 16 cores
 * - NIC: InfiniBand of 400 Gb/s, "~50 GB/s" (https://github.com/deepseek-ai/DeepEP). Its latency, the messages of the
 *   engine and the bandwidth of the engine's copies are assumptions: no measurement stands behind them.
 * - `hiddenBytes`: 2,880 × bf16, gpt-oss-120b
 */
export const DEFAULT_COSTS: ClusterCosts = {
  source: 'built in (docs/cluster.md): a modelled H100, the jitter of a 16-core Xeon, links by their data sheets',
  pass: { fixedUs: 7600, perTokenUs: 60, restUs: REST_US },
  hookPerRowUs: 0.0012,
  readLatencyUs: 40,
  blockingReadUs: 147,
  readGBPerS: 40,
  lockUs: 6.8,
  savePerRowUs: 0.036,
  loadPerRowUs: 0.037,
  engineCallUs: 0,
  enginePerRequestUs: 1.13,
  engineCopyGBPerS: 8,
  messageUs: [20, 30, 40, 60, 100, 400],
  nicGBPerS: 50,
  nicLatencyUs: 8,
  hiddenBytes: 5760,
};

const MOST_QUANTILES = 10_000;

/** Reads what `bench --json` wrote, or its `costs` alone. Throws BAD_FILE. */
export function parseCosts(text: string, file: string): ClusterCosts {
  const bad = (problem: string): RoutedExpertsError =>
    RoutedExpertsError.of('BAD_FILE', file, `${problem}; make one with "bench --lockstep --ranks 1 --json FILE"`);
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw bad((error as Error).message);
  }
  const found = isObject(value) && isObject(value['costs']) ? value['costs'] : value;
  if (!isObject(found) || !isObject(found['pass'])) throw bad('holds no costs');
  const given = found as Partial<Record<keyof ClusterCosts, unknown>>;
  const costs = { ...DEFAULT_COSTS, ...given, pass: { ...DEFAULT_COSTS.pass, ...(found['pass'] as object) } };
  checkCosts(costs as ClusterCosts, bad);
  return costs as ClusterCosts;
}

const RATES = ['readGBPerS', 'engineCopyGBPerS', 'nicGBPerS'];

/** Throws what `bad` makes of the first field that is none. */
function checkCosts(costs: ClusterCosts, bad: (problem: string) => Error): void {
  const { pass, source, ...others } = costs;
  if (typeof source !== 'string') throw bad('"source" is no text');
  for (const [name, value] of Object.entries({ ...pass, ...others })) {
    if (!(name in DEFAULT_COSTS) && !(name in DEFAULT_COSTS.pass)) throw bad(`"${name}" is no cost`);
    if (Array.isArray(value)) checkQuantiles(name, value, bad);
    else if (typeof value !== 'number' || !(value >= 0) || value === Infinity) {
      throw bad(`"${name}" is ${String(value)}, not a number ≥ 0`);
    } else if (RATES.includes(name) && value === 0) throw bad(`"${name}" is 0: nothing would ever arrive`);
  }
  if (!Array.isArray(pass.restUs) || !Array.isArray(costs.messageUs)) throw bad('"restUs" or "messageUs" is no list');
}

function checkQuantiles(name: string, values: readonly unknown[], bad: (problem: string) => Error): void {
  if (values.length < 2 || values.length > MOST_QUANTILES) {
    throw bad(`"${name}" has ${values.length} quantiles, not 2 to ${MOST_QUANTILES}`);
  }
  let before = Number.NEGATIVE_INFINITY;
  for (const value of values) {
    if (typeof value !== 'number' || !Number.isFinite(value) || value < before) {
      throw bad(`"${name}" is not a list of numbers that rise, at ${String(value)}`);
    }
    before = value;
  }
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** The value of a share in [0, 1) of a distribution, straight between its quantiles. */
export function quantileAt(quantiles: readonly number[], share: number): number {
  const place = share * (quantiles.length - 1);
  const below = Math.floor(place);
  const from = quantiles[below]!;
  const to = quantiles[below + 1] ?? from;
  return from + (to - from) * (place - below);
}

/** Bytes of a row as `shm-flock` keeps it: int32. */
export function savedRowBytes({ numLayers, topK }: ModelConfig): number {
  return numLayers * topK * 4;
}
