/** The kernels of one forward pass, and how many workgroups each wants for a step. `wgsl-kernels.ts` builds them. */

import type { ModelConfig, RouterConfig } from '../../contract/config.ts';
import type { DeviceInfo, Kernel, KernelAccess } from '../../contract/device.ts';
import type { KernelShape } from './kernel-shape.ts';
import { packedBytes } from './kernel-shape.ts';
import { attend } from './attend/attend.ts';
import { attendWrite } from './attend-write/attend-write.ts';
import { ballast } from './ballast/ballast.ts';
import { fold } from './fold/fold.ts';
import { monolithicRoute } from './route/monolithic-route.ts';
import { gate } from './gate/gate.ts';
import { pack } from './pack/pack.ts';
import { Router, route } from './route/route.ts';
import { expandRoutingReplay, packRoutingReplay } from './routing-replay/routing-replay.ts';
import { sample } from './sample/sample.ts';
import { select } from '../router/reference/select.ts';
import { wgslModule } from '../router/wgsl-module.ts';
import { MODULAR, selectionOf } from './route/engine-router.ts';
import { FROM_DEVICE, HEADER_WORDS, Header, REQUEST_WORDS, RequestField } from './step-input.ts';

/** Sizes of one step; a `StepInput` is one. */
export type StepSizes = Readonly<{ numTokens: number; numRequests: number; numTableUpdates: number }>;

/** A kernel and its workgroups for a step. */
export type StepKernel = Readonly<{ kernel: Kernel; grid: (sizes: StepSizes) => readonly [x: number, y: number] }>;

export type KernelSet = Readonly<{
  attendWrite: StepKernel;
  attend: StepKernel;
  /** Behind `attend` in a pipeline stage that another stands before. */
  fold: StepKernel;
  /** Behind a gate it selects from a chunk's choices; else it makes its own logits. */
  route: StepKernel;
  sample: StepKernel;
  /** Grid-stride: any number of workgroups is right; `packWorkgroups` says how many are fast. */
  pack: Kernel;
  /** One workgroup. */
  ballast: Kernel;
  /** Absent: the router is one kernel. */
  gate?: GateKernel | null;
  /** Content of the weight buffer of gate or router, in the layout that its variant wants. */
  gateWeights: () => Uint32Array;
  /** What the router puts out, and so what `pack` reads. Absent = modular. */
  router?: RouterConfig;
  /** Of a monolithic router with `routing_replay_out`: its rows as a modular router's. */
  expand?: StepKernel | null;
}>;

/**
 * Writes choices, which `route` selects from, a chunk of tokens at a time; grids of both are for the tokens of a chunk.
 */
export type GateKernel = StepKernel & Readonly<{ chunkTokens: number }>;

export type KernelRole = Exclude<keyof KernelSet, 'gateWeights' | 'router' | 'expand' | 'gate'>;

export type KernelSetFactory = (model: ModelConfig, shape: KernelShape, info: DeviceInfo) => KernelSet;

export const BINDINGS: Readonly<Record<KernelRole | 'expand', readonly KernelAccess[]>> = {
  /** stepInput, slotMapping, lastTokens, kvKeys, blockTable */
  attendWrite: ['read', 'read', 'read', 'read-write', 'read-write'],
  /** stepInput, kvKeys, blockTable, hidden */
  attend: ['read', 'read', 'read', 'read-write'],
  /** stepInput, received, hidden */
  fold: ['read', 'read', 'read-write'],
  /** stepInput, hidden, gateWeights, routedExperts: of a modular router that makes its own logits */
  route: ['read', 'read', 'read', 'read-write'],
  /** stepInput, hidden, sampled, lastTokens */
  sample: ['read', 'read', 'read-write', 'read-write'],
  /** routedExperts or routingReplayOut, rows, packed */
  pack: ['read', 'read', 'read-write'],
  /** routingReplayOut, stepInput, routedExperts */
  expand: ['read', 'read', 'read-write'],
  /** ballast */
  ballast: ['read-write'],
};

/** Threads per workgroup of the kernels that have a thread per item. */
export const THREADS = 64;

/** The layout of a step's input, as the shaders name it. */
export const STEP_CONSTANTS: Readonly<Record<string, number>> = {
  FROM_DEVICE,
  HEADER_WORDS,
  REQUEST_WORDS,
  H_NUM_TOKENS: Header.numTokens,
  H_NUM_REQUESTS: Header.numRequests,
  H_NUM_TABLE_UPDATES: Header.numTableUpdates,
  H_EPOCH: Header.epoch,
  H_TOKEN_REQUESTS: Header.tokenRequests,
  H_REQUESTS: Header.requests,
  H_TABLE_UPDATES: Header.tableUpdates,
  R_BATCH_SLOT: RequestField.batchSlot,
  R_TOKEN_START: RequestField.tokenStart,
  R_TOKEN_COUNT: RequestField.tokenCount,
  R_ROW_START: RequestField.rowStart,
  R_NUM_DRAFTS: RequestField.numDrafts,
  R_SAMPLES: RequestField.samples,
  THREADS,
};

/** Workgroups with which `pack` is fast for `numRows` rows. */
export function packWorkgroups(model: ModelConfig, numRows: number): number {
  return Math.min(65_535, Math.max(1, Math.ceil(packedBytes(model, numRows) / 4 / THREADS)));
}

/** The reference of each kernel, over the buffers of `BINDINGS`. */
export function references(
  model: ModelConfig,
  shape: KernelShape,
  config: RouterConfig = MODULAR,
): Readonly<Record<KernelRole | 'expand' | 'gate' | 'select', Kernel['reference']>> {
  const router = new Router(model);
  const selection = selectionOf(model);
  const maxTokens = shape.maxNumBatchedTokens;
  const isReplay = config.kind === 'monolithic' && config.hasRoutingReplay;
  return {
    attendWrite: (b) => attendWrite(shape, b[0]!, b[1]!, b[2]!, b[3]!, b[4]!),
    attend: (b) => attend(shape, b[0]!, b[1]!, b[2]!, b[3]!),
    fold: (b) => fold(b[0]!, b[1]!, b[2]!),
    route:
      config.kind === 'modular'
        ? (b) => route(router, b[0]!, b[1]!, b[3]!)
        : (b) => monolithicRoute(router, maxTokens, b[0]!, b[1]!, b[3]!, b[4] ?? null),
    gate: (b) => gate(router.gate, model, b[0]!, b[1]!, b[3]!, b[4]!),
    select: (b) => select(selection, b[0]!, b[1]!, b[2]!),
    sample: (b) => sample(shape, b[0]!, b[1]!, b[2]!, b[3]!),
    pack: isReplay
      ? (b) => packRoutingReplay(model, maxTokens, b[0]!, b[1]!, b[2]!)
      : (b) => pack(model, b[0]!, b[1]!, b[2]!),
    expand: (b) => expandRoutingReplay(model, maxTokens, b[0]!, b[1]!, b[2]!),
    ballast: (b) => ballast(b[0]!),
  };
}

/** The shader `model/<file>.wgsl`, behind the functions of `mix.wgsl`. */
export function modelShader(file: string, constants: Readonly<Record<string, number>>): Kernel['wgsl'] {
  return wgslModule(['model/mix/mix', `model/${file}`], constants);
}
