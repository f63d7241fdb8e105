/** The reference kernels for many short runs: one router a model, however many scenarios use it. */

import type { ModelConfig } from '../../contract/config.ts';
import type { Kernel } from '../../contract/device.ts';
import { BINDINGS, type KernelRole, type KernelSetFactory, type StepKernel } from '../../kernels/model/kernel-set.ts';
import { attend } from '../../kernels/model/attend/attend.ts';
import { attendWrite } from '../../kernels/model/attend-write/attend-write.ts';
import { fold } from '../../kernels/model/fold/fold.ts';
import { pack } from '../../kernels/model/pack/pack.ts';
import { route, Router } from '../../kernels/model/route/route.ts';
import { sample } from '../../kernels/model/sample/sample.ts';
import { routingFunctionName, routingFunctionOf } from '../../kernels/router/routing-function.ts';

/** A power of two, larger than any storm's step. */
const ROWS_REMEMBERED = 512;

const routers: Map<string, Router> = new Map();
const routersOfModels: WeakMap<ModelConfig, Router> = new WeakMap();

/**
 * A router that remembers its last rows. Of each token every rank and the ledger ask for the row of the same hidden
 * state, one after the other.
 */
class RememberingRouter extends Router {
  readonly #rowLength: number;
  /** The hidden state of each place, and its row. */
  readonly #xs: Int32Array = new Int32Array(ROWS_REMEMBERED);
  readonly #ys: Int32Array = new Int32Array(ROWS_REMEMBERED);
  readonly #isUsed: Uint8Array = new Uint8Array(ROWS_REMEMBERED);
  readonly #rows: Uint16Array;

  constructor(model: ModelConfig) {
    super(model);
    this.#rowLength = model.numLayers * model.topK;
    this.#rows = new Uint16Array(ROWS_REMEMBERED * this.#rowLength);
  }

  override route(x: number, y: number, ids: Uint32Array | Uint16Array | Uint8Array, at: number): void {
    const place = x & (ROWS_REMEMBERED - 1);
    const own = place * this.#rowLength;
    if (this.#isUsed[place] === 0 || this.#xs[place] !== (x | 0) || this.#ys[place] !== (y | 0)) {
      super.route(x, y, this.#rows, own);
      this.#isUsed[place] = 1;
      this.#xs[place] = x;
      this.#ys[place] = y;
    }
    for (let i = 0; i < this.#rowLength; i += 1) ids[at + i] = this.#rows[own + i]!;
  }
}

/** The router of a model; models of one shape have the same weights. */
export function routerOf(model: ModelConfig): Router {
  let router = routersOfModels.get(model);
  if (router !== undefined) return router;
  const name = routingFunctionName(routingFunctionOf(model));
  const key = [model.numLayers, model.firstLayer ?? 0, name, model.gateWidth, model.vocabSize].join('/');
  router = routers.get(key);
  if (router === undefined) {
    router = new RememberingRouter(model);
    routers.set(key, router);
  }
  routersOfModels.set(model, router);
  return router;
}

const NO_WEIGHTS = new Uint32Array(4);
const ONE_WORKGROUP = [1, 1] as const;

function kernel(role: KernelRole, reference: Kernel['reference']): Kernel {
  return { name: `${role}/simulated`, wgsl: () => '', bindings: BINDINGS[role], requires: [], reference };
}

function step(role: KernelRole, reference: Kernel['reference']): StepKernel {
  return { kernel: kernel(role, reference), grid: () => ONE_WORKGROUP };
}

/** Makes the kernels of `wgslKernels` with a shared router, without shaders and without a ballast. */
export const simKernels: KernelSetFactory = (model, shape) => {
  const router = routerOf(model);
  return {
    attendWrite: step('attendWrite', (b) => attendWrite(shape, b[0]!, b[1]!, b[2]!, b[3]!, b[4]!)),
    attend: step('attend', (b) => attend(shape, b[0]!, b[1]!, b[2]!, b[3]!)),
    fold: step('fold', (b) => fold(b[0]!, b[1]!, b[2]!)),
    route: step('route', (b) => route(router, b[0]!, b[1]!, b[3]!)),
    sample: step('sample', (b) => sample(shape, b[0]!, b[1]!, b[2]!, b[3]!)),
    pack: kernel('pack', (b) => pack(model, b[0]!, b[1]!, b[2]!)),
    ballast: step('ballast', () => undefined).kernel,
    gateWeights: () => NO_WEIGHTS,
  };
};
