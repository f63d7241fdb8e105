/**
 * A design of the caller's own for the storm, where nothing is forgiven: a hook that returns what it may not throws
 * DESIGN_FAILED, with its name. What a hook throws itself goes through, with the line that threw it.
 *
 * Whether rows are the right ones is the storm's question; here is only asked whether they are rows.
 */

import type { CaptureLiveCounts, DeviceRange } from '../../contract/capture.ts';
import type { RoutedExpertDeltas } from '../../contract/model-runner-output.ts';
import type { Design } from '../designs.ts';
import { rowShape } from '../row-shape.ts';
import { watchedContext } from './guarded-worker-half.ts';
import { BrokenContract, callHook, checkCounts, designFailed, shown } from './hook-call.ts';
import { checkDeltas, checkRange } from './worker-half-checks.ts';

/** Throws BrokenContract for what the hook may not return. */
type Check = (result: unknown, args: readonly unknown[]) => void;
type Checks = Readonly<Record<string, Check>>;
type Strictness = Readonly<{ design: string; part: 'engineHalf' | 'workerHalf'; checks: Checks }>;

const ENGINE_HALF: Checks = {
  wants: (result) => {
    if (typeof result !== 'boolean') throw new BrokenContract(`it returned ${shown(result)}; return a boolean`);
  },
  take: (result) => {
    if (typeof result !== 'object') throw new BrokenContract(`it returned ${shown(result)}; return rows or null`);
  },
  liveCounts: (result) => checkCounts(result as CaptureLiveCounts),
};

export function strictDesign(design: Design): Design {
  return {
    ...design,
    engineHalf: (...args) => {
      const half = design.engineHalf(...args);
      return half === null ? null : strictHalf(half, { design: design.name, part: 'engineHalf', checks: ENGINE_HALF });
    },
    workerHalf: (context, resources) => {
      const { context: watched, buffers } = watchedContext(context);
      const half = design.workerHalf(watched, resources);
      const { bytesPerRow } = rowShape(context.model);
      const mostBytes = context.pack.packed.byteLength;
      const checks: Checks = {
        record: (range) => {
          if (range !== null) checkRange(range as DeviceRange, { buffers, mostBytes });
        },
        collect: (deltas, [, lent]) => {
          if (deltas !== null)
            checkDeltas(deltas as RoutedExpertDeltas, { lent: lent as Uint8Array | null, bytesPerRow });
        },
        liveCounts: (result) => checkCounts(result as CaptureLiveCounts),
      };
      return half === null ? null : strictHalf(half, { design: design.name, part: 'workerHalf', checks });
    },
  };
}

/** The half with its hooks as they are, present or absent, and what they return checked. */
function strictHalf<H extends object>(half: H, { design, part, checks }: Strictness): H {
  // Not over the half itself: of a frozen object a proxy may only return what it holds.
  return new Proxy({} as H, {
    get: (_, hook) => {
      const value: unknown = Reflect.get(half, hook, half);
      if (typeof value !== 'function') return value;
      return (...args: readonly unknown[]): unknown => {
        const result: unknown = value.apply(half, args);
        try {
          callHook(() => result);
          checks[String(hook)]?.(result, args);
        } catch (error) {
          throw designFailed(design, `${part}.${String(hook)}`, error);
        }
        return result;
      };
    },
  });
}
