/**
 * Times router kernels by the device's own timestamps. A figure is the median over a few passes of the mean time of a
 * launch, for launches back to back in one compute pass, each waiting for the one before. Launches take turns with
 * several inputs, so that no input larger than the device's cache stays there; outputs are checked against the
 * reference once.
 */

import type { BoundKernel, Device, DeviceBuffer, Kernel } from '../../contract/device.ts';
import { routeRows } from '../../kernels/router/reference/router-reference.ts';
import type { BaselineName } from '../../kernels/router/router-baselines.ts';
import {
  BASELINES,
  baselineKernel,
  copyKernel,
  emptyKernel,
  fillKernel,
} from '../../kernels/router/router-baselines.ts';
import { countWrongIds, isGroupTie, marginsOf } from '../../kernels/router/router-check.ts';
import { routerKernel, routerParams, routerWorkgroups } from '../../kernels/router/router-kernels.ts';
import { routerVariantName, routerVariants } from '../../kernels/router/router-variant.ts';
import type { BenchShape } from './bench-shapes.ts';

export type BenchFigure = Readonly<{
  shape: string;
  numExperts: number;
  topK: number;
  tokens: number;
  /** A variant's name, or a baseline's. */
  kernel: string;
  isChosen: boolean;
  launchUs: number;
  /** Logits read and ids and weights written, once each. */
  bytes: number;
  gigabytesPerSecond: number;
  /** Of the copy kernel's bandwidth. */
  shareOfCopy: number;
  wrongIds: number;
}>;

export type BenchResult = Readonly<{ copyGigabytesPerSecond: number; emptyLaunchUs: number; figures: BenchFigure[] }>;

export type BenchPlan = Readonly<{
  shapes: readonly BenchShape[];
  tokens: readonly number[];
  /** Also the variants that are not chosen. */
  allVariants: boolean;
  /** Also the baselines, up to so many tokens; 0 = none. */
  maxBaselineTokens: number;
  /** Most inputs that launches take turns with; 1: those that the device's cache can hold stay there. */
  maxInputs: number;
  /** Passes per figure. */
  passes: number;
}>;

/** Inputs of one shape take turns until they are this large together. */
const ROTATION_BYTES = 160e6;
/** Rows at each end of the output that are compared with the reference. */
const CHECKED_ROWS = 24;
/** Device time that one pass should take, at most. */
const PASS_US = 4000;
const MAX_LAUNCHES = 200;
/** A GPU that has waited runs slowly at first. */
const WARM_UP_MS = 40;

type Candidate = Readonly<{ name: string; kernel: Kernel; workgroups: number; isChosen: boolean }>;

export async function benchKernels(
  device: Device,
  plan: BenchPlan,
  onFigure: (figure: BenchFigure) => void,
): Promise<BenchResult> {
  const copy = await Copy.on(device);
  const copyGigabytesPerSecond =
    (2 * copy.byteLength) / (await measure(device, copy, [copy.bound], copy.workgroups, plan.passes)) / 1000;
  const emptyLaunchUs = await measureEmpty(device, copy, plan.passes);
  const figures: BenchFigure[] = [];
  for (const shape of plan.shapes) {
    for (const tokens of plan.tokens) {
      if (4 * tokens * shape.router.numExperts > device.info.maxStorageBufferBytes) continue;
      for (const figure of await benchShape(device, copy, shape, tokens, plan, copyGigabytesPerSecond)) {
        figures.push(figure);
        onFigure(figure);
      }
    }
  }
  copy.destroy();
  return { copyGigabytesPerSecond, emptyLaunchUs, figures };
}

async function benchShape(
  device: Device,
  warmer: Copy,
  shape: BenchShape,
  tokens: number,
  plan: BenchPlan,
  copy: number,
): Promise<readonly BenchFigure[]> {
  const { numExperts, topK } = shape.router;
  const inputBytes = 4 * tokens * numExperts;
  const bytes = inputBytes + 8 * tokens * topK;
  const buffers: DeviceBuffer[] = [];
  const storage = (label: string, byteLength: number): DeviceBuffer => {
    const buffer = device.createBuffer(label, byteLength, 'storage');
    buffers.push(buffer);
    return buffer;
  };
  try {
    const params = storage('params', 8);
    const bias = storage('selectionBias', 4 * numExperts);
    const biases = Float32Array.from({ length: numExperts }, (_, id) => ((id * 37) % 64) / 640);
    device.write(bias, 0, new Uint32Array(biases.buffer));
    device.write(params, 0, routerParams(tokens, shape.router.hasSelectionBias ? biases : null));
    const ids = storage('ids', 4 * tokens * topK);
    const weights = storage('weights', 4 * tokens * topK);
    const numInputs = Math.min(plan.maxInputs, Math.ceil(ROTATION_BYTES / inputBytes));
    const inputs: DeviceBuffer[] = [];
    for (let i = 0; i < numInputs; i++) {
      inputs.push(storage(`logits ${i}`, inputBytes));
      await fill(device, inputs[i]!, i + 1);
    }
    const figures: BenchFigure[] = [];
    for (const { name, kernel, workgroups, isChosen } of candidates(device, shape, tokens, plan)) {
      const bounds: BoundKernel[] = [];
      for (const input of inputs) bounds.push(await device.bind(kernel, [params, input, ids, weights, bias]));
      const launchUs = await measure(device, warmer, bounds, workgroups, plan.passes);
      device.submit((commands) => commands.dispatch(bounds[0]!, workgroups));
      const wrongIds = await countWrong(device, shape, tokens, inputs[0]!, biases, ids);
      const gigabytesPerSecond = bytes / launchUs / 1000;
      figures.push({
        shape: shape.name,
        numExperts,
        topK,
        tokens,
        kernel: name,
        isChosen,
        launchUs,
        bytes,
        gigabytesPerSecond,
        shareOfCopy: gigabytesPerSecond / copy,
        wrongIds,
      });
    }
    return figures;
  } finally {
    for (const buffer of buffers) buffer.destroy();
  }
}

function candidates(device: Device, { router }: BenchShape, tokens: number, plan: BenchPlan): readonly Candidate[] {
  const [chosen, ...others] = routerVariants(router, device.info, tokens);
  const all: Candidate[] = [chosen!, ...(plan.allVariants ? others : [])].map((variant) => ({
    name: routerVariantName(variant),
    kernel: routerKernel(router, variant),
    workgroups: routerWorkgroups(variant, tokens),
    isChosen: variant === chosen,
  }));
  if (tokens > plan.maxBaselineTokens) return all;
  const baselines = BASELINES.flatMap((name: BaselineName): Candidate[] => {
    const baseline = baselineKernel(router, name);
    if (baseline === null) return [];
    const workgroups = Math.min(65_535, Math.ceil(tokens / baseline.rows));
    return [{ name: `baseline ${name}`, kernel: baseline.kernel, workgroups, isChosen: false }];
  });
  return [...all, ...baselines];
}

/** Median over passes of the mean microseconds of a launch. */
async function measure(
  device: Device,
  warmer: Copy,
  bounds: readonly BoundKernel[],
  workgroups: number,
  passes: number,
): Promise<number> {
  const pass = async (launches: number): Promise<number> => {
    const nanoseconds = await device.time((commands) => {
      for (let i = 0; i < launches; i++) commands.dispatch(bounds[i % bounds.length]!, workgroups);
    });
    return nanoseconds / 1000 / launches;
  };
  await warmer.run();
  const estimate = await pass(2);
  const launches = Math.max(2, Math.min(MAX_LAUNCHES, Math.floor(PASS_US / estimate)));
  const times: number[] = [];
  for (let i = 0; i <= passes; i++) times.push(await pass(launches));
  const sorted = times.slice(1).sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)]!;
}

/** A plain copy: the bandwidth that there is, and work that brings a GPU to its full clock. */
class Copy {
  readonly byteLength: number;
  readonly bound: BoundKernel;
  readonly workgroups: number;
  readonly #device: Device;
  readonly #buffers: readonly DeviceBuffer[];

  private constructor(device: Device, buffers: readonly DeviceBuffer[], bound: BoundKernel) {
    this.#device = device;
    this.#buffers = buffers;
    this.bound = bound;
    this.byteLength = buffers[1]!.byteLength;
    this.workgroups = Math.min(65_535, this.byteLength / 16 / 256);
  }

  static async on(device: Device): Promise<Copy> {
    const byteLength = Math.min(device.info.isSoftware ? 2 ** 22 : 2 ** 29, device.info.maxStorageBufferBytes);
    const buffers = ['params', 'source', 'output'].map((label, i) =>
      device.createBuffer(label, i === 0 ? 4 : byteLength, 'storage'),
    );
    device.write(buffers[0]!, 0, Uint32Array.of(byteLength / 16));
    await fill(device, buffers[1]!, 0);
    return new Copy(device, buffers, await device.bind(copyKernel, buffers));
  }

  async run(): Promise<void> {
    for (const end = performance.now() + WARM_UP_MS; performance.now() < end;) {
      await this.#device.time((commands) => {
        for (let i = 0; i < 8; i++) commands.dispatch(this.bound, this.workgroups);
      });
    }
  }

  destroy(): void {
    for (const buffer of this.#buffers) buffer.destroy();
  }
}

async function measureEmpty(device: Device, warmer: Copy, passes: number): Promise<number> {
  const target = device.createBuffer('target', 16, 'storage');
  const us = await measure(device, warmer, [await device.bind(emptyKernel, [target])], 1, passes);
  target.destroy();
  return us;
}

async function fill(device: Device, buffer: DeviceBuffer, seed: number): Promise<void> {
  const params = device.createBuffer('fill', 8, 'storage');
  device.write(params, 0, Uint32Array.of(buffer.byteLength / 16, seed));
  const bound = await device.bind(fillKernel, [params, buffer]);
  device.submit((commands) => commands.dispatch(bound, Math.min(65_535, Math.ceil(buffer.byteLength / 16 / 256))));
  params.destroy();
}

/** Wrong ids in the first and the last rows. */
async function countWrong(
  device: Device,
  { router }: BenchShape,
  tokens: number,
  input: DeviceBuffer,
  bias: Float32Array,
  ids: DeviceBuffer,
): Promise<number> {
  const { numExperts, topK, groups } = router;
  const { ofChoices, ofGroups } = marginsOf(router);
  const rows = Math.min(tokens, CHECKED_ROWS);
  let wrong = 0;
  for (const first of new Set([0, tokens - rows])) {
    const logits = new Float32Array(
      (await readBytes(device, input, 4 * first * numExperts, 4 * rows * numExperts)).buffer,
    );
    const routed = new Uint32Array((await readBytes(device, ids, 4 * first * topK, 4 * rows * topK)).buffer);
    for (const [row, expected] of routeRows(router, logits, bias).entries()) {
      if (groups !== null && isGroupTie(expected.groupScores, groups.keep, ofGroups)) continue;
      wrong += countWrongIds(routed.subarray(row * topK, (row + 1) * topK), expected, ofChoices);
    }
  }
  return wrong;
}

async function readBytes(device: Device, buffer: DeviceBuffer, offset: number, length: number): Promise<Uint8Array> {
  const readback = device.createBuffer('readback', length, 'readback');
  device.submit((commands) => commands.copy(buffer, offset, readback, 0, length));
  const bytes = await device.read(readback, length, (view) => view.slice());
  readback.destroy();
  return bytes;
}
