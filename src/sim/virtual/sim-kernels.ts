/** The reference kernels for many short runs: one router a model, however many scenarios use it. */

import type { ModelConfig } from '../../contract/config.ts';
import type { Kernel } from '../../contract/device.ts';
import { BINDINGS, type KernelRole, type KernelSetFactory, type StepKernel } from '../../kernels/model/kernel-set.ts';
import { attend } from '../../kernels/model/attend/attend.ts';
import { attendWrite } from '../../kernels/model/attend-write/attend-write.ts';
import { pack } from '../../kernels/model/pack/pack.ts';
import { route, Router } from '../../kernels/model/route/route.ts';
import { sample } from '../../kernels/model/sample/sample.ts';
import { routingFunctionName, routingFunctionOf } from '../../kernels/router/routing-function.ts';

const routers: Map<string, Router> = new Map();

/** The router of a model; models of one shape have the same weights. */
export function routerOf(model: ModelConfig): Router {
  const name = routingFunctionName(routingFunctionOf(model));
  const key = [model.numLayers, name, model.gateWidth, model.vocabSize].join('/');
  let router = routers.get(key);
  if (router === undefined) {
    router = new Router(model);
    routers.set(key, router);
  }
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
    route: step('route', (b) => route(router, b[0]!, b[1]!, b[3]!)),
    sample: step('sample', (b) => sample(shape, b[0]!, b[1]!, b[2]!, b[3]!)),
    pack: kernel('pack', (b) => pack(model, b[0]!, b[1]!, b[2]!)),
    ballast: step('ballast', () => undefined).kernel,
    gateWeights: () => NO_WEIGHTS,
  };
};
