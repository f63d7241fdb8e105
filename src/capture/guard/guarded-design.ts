/** A design of the caller's own, with a guard around each half: for engines that serve others beside it. */

import type { Design } from '../designs.ts';
import { GuardedEngineHalf } from './guarded-engine-half.ts';
import { GuardedWorkerHalf, watchedContext } from './guarded-worker-half.ts';

export function guardedDesign(design: Design): Design {
  return {
    ...design,
    engineHalf: (model, engine, resources) => {
      const half = design.engineHalf(model, engine, resources);
      return half === null ? null : new GuardedEngineHalf(design.name, half, model, engine);
    },
    workerHalf: (context, resources) => {
      const watched = watchedContext(context);
      const half = design.workerHalf(watched.context, resources);
      return half === null ? null : new GuardedWorkerHalf(design.name, half, watched);
    },
  };
}
