/** The kernels of one forward pass, and how many workgroups each wants for a step. What builds them is in `wgsl-kernels.ts` and here. */

import type { ModelConfig, RouterConfig } from '../contract/config.ts';
import type { DeviceInfo, Kernel, KernelAccess } from '../contract/device.ts';
import type { KernelShape } from './kernel-shape.ts';
import { packedBytes } from './kernel-shape.ts';
import { attend } from './reference/attend.ts';
import { attendWrite } from './reference/attend-write.ts';
import { ballast } from './reference/ballast.ts';
import { monolithicRoute } from './reference/monolithic-route.ts';
import { pack } from './reference/pack.ts';
import { Router, route } from './reference/route.ts';
import { expandRoutingReplay, packRoutingReplay } from './reference/routing-replay.ts';
import { sample } from './reference/sample.ts';

/** Sizes of one step; a `StepInput` is one. */
export type StepSizes = Readonly<{ numTokens: number; numRequests: number; numTableUpdates: number }>;

/** A kernel and its workgroups for a step. */
export type StepKernel = Readonly<{ kernel: Kernel; grid: (sizes: StepSizes) => readonly [x: number, y: number] }>;

export type KernelSet = Readonly<{
  attendWrite: StepKernel;
  attend: StepKernel;
  route: StepKernel;
  sample: StepKernel;
  /** Grid-stride: any number of workgroups is right; `packWorkgroups` says how many are fast. */
  pack: Kernel;
  /** One workgroup. */
  ballast: Kernel;
  /** Content of the router's weight buffer, in the layout that its variant wants. */
  gateWeights: () => Uint32Array;
  /** What the router puts out, and so what `pack` reads. Absent = modular. */
  router?: RouterConfig;
  /** Of a monolithic router with `routing_replay_out`: its rows as a modular router's. */
  expand?: StepKernel | null;
}>;

export type KernelRole = Exclude<keyof KernelSet, 'gateWeights' | 'router' | 'expand'>;

export type KernelSetFactory = (model: ModelConfig, shape: KernelShape, info: DeviceInfo) => KernelSet;

export const BINDINGS: Readonly<Record<KernelRole | 'expand', readonly KernelAccess[]>> = {
  /** stepInput, slotMapping, lastTokens, kvKeys, blockTable */
  attendWrite: ['read', 'read', 'read', 'read-write', 'read-write'],
  /** stepInput, kvKeys, blockTable, hidden */
  attend: ['read', 'read', 'read', 'read-write'],
  /** stepInput, hidden, gateWeights, routedExperts; of a monolithic router see `routeBindings` */
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

/** stepInput, hidden, gateWeights, then routedExperts; or expertOutput and, if it has it, routingReplayOut. */
export function routeBindings(router: RouterConfig): readonly KernelAccess[] {
  const hasReplay = router.kind === 'monolithic' && router.hasRoutingReplay;
  return hasReplay ? [...BINDINGS.route, 'read-write'] : BINDINGS.route;
}

/** Threads per workgroup of the kernels that have a thread per item. */
export const THREADS = 64;

/** Workgroups with which `pack` is fast for `numRows` rows. */
export function packWorkgroups(model: ModelConfig, numRows: number): number {
  return Math.min(65_535, Math.max(1, Math.ceil(packedBytes(model, numRows) / 4 / THREADS)));
}

/** The reference of each kernel, over the buffers of `BINDINGS`. */
export function references(
  model: ModelConfig,
  shape: KernelShape,
  { kind, ...rest }: RouterConfig = { kind: 'modular' },
): Readonly<Record<KernelRole | 'expand', Kernel['reference']>> {
  const router = new Router(model);
  const maxTokens = shape.maxNumBatchedTokens;
  const isReplay = 'hasRoutingReplay' in rest && rest.hasRoutingReplay;
  return {
    attendWrite: (b) => attendWrite(shape, b[0]!, b[1]!, b[2]!, b[3]!, b[4]!),
    attend: (b) => attend(shape, b[0]!, b[1]!, b[2]!, b[3]!),
    route:
      kind === 'modular'
        ? (b) => route(router, b[0]!, b[1]!, b[3]!)
        : (b) => monolithicRoute(router, maxTokens, b[0]!, b[1]!, b[3]!, b[4] ?? null),
    sample: (b) => sample(shape, b[0]!, b[1]!, b[2]!, b[3]!),
    pack: isReplay
      ? (b) => packRoutingReplay(model, maxTokens, b[0]!, b[1]!, b[2]!)
      : (b) => pack(model, b[0]!, b[1]!, b[2]!),
    expand: (b) => expandRoutingReplay(model, maxTokens, b[0]!, b[1]!, b[2]!),
    ballast: (b) => ballast(b[0]!),
  };
}

/** Kernels without WGSL, for the `cpu` device where there is no file system to load it from. */
export const referenceKernels: KernelSetFactory = (model, shape) => {
  const reference = references(model, shape);
  const kernel = (name: KernelRole): Kernel => ({
    name: `${name}/reference`,
    wgsl: '',
    bindings: BINDINGS[name],
    requires: [],
    reference: reference[name],
  });
  const once = (name: KernelRole): StepKernel => ({ kernel: kernel(name), grid: () => [1, 1] });
  return {
    attendWrite: once('attendWrite'),
    attend: once('attend'),
    route: once('route'),
    sample: once('sample'),
    pack: kernel('pack'),
    ballast: kernel('ballast'),
    gateWeights: () => new Uint32Array(4),
  };
};
