/** A working design with one hook broken, as designs of the caller's own are: for the guard around them. */

import { checkedDesign } from '../../../src/capture/guard/checked-design.ts';
import { guardedDesign } from '../../../src/capture/guard/guarded-design.ts';
import { designs, type Design } from '../../../src/capture/designs.ts';
import type { CaptureRequest } from '../../../src/contract/request.ts';

export type Half = 'engineHalf' | 'workerHalf';
export type Hook = (...args: unknown[]) => unknown;

export type Fault = Readonly<{
  half: Half;
  /** Of `blockingReads` too. */
  hook: string;
  /** What the hook does in place of its work, or around it. Absent: it throws. */
  breaks?: (work: Hook, ...args: unknown[]) => unknown;
  /** A hook that concerns one request is broken for this one only. */
  requestId?: string;
  /** The design that is broken; default `deltas`. */
  base?: Design;
}>;

/** What a design of the caller's own is made of: the halves of `deltas`, one hook of them broken. */
export function brokenParts({ half, hook, requestId, base = designs.deltas, breaks = boom }: Fault): Design {
  const breakHook = (made: object): object => {
    const owner = hook in made ? made : ((made as { blockingReads?: object }).blockingReads ?? made);
    const hooks = owner as Record<string, Hook | undefined>;
    const work: Hook = hooks[hook]?.bind(owner) ?? ((): void => {});
    hooks[hook] = (...args) => {
      const isMeant = requestId === undefined || (args[0] as CaptureRequest).requestId === requestId;
      return isMeant ? breaks(work, ...args) : work(...args);
    };
    return made;
  };
  const broken = <T extends object>(which: Half, made: T | null): T | null =>
    made === null || which !== half ? made : (breakHook(made) as T);
  return {
    name: 'mine',
    gaps: base.gaps,
    engineHalf: (...args) => broken('engineHalf', base.engineHalf(...args)),
    workerHalf: (...args) => broken('workerHalf', base.workerHalf(...args)),
  };
}

/** As `loadDesign` makes it of a module. */
export function brokenDesign(fault: Fault): Design {
  return guardedDesign(checkedDesign({ default: brokenParts(fault) }, 'mine.ts'));
}

function boom(): never {
  throw new Error('boom');
}
