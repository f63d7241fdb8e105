/** From what a module exports to a design: every part that a design needs, or a message that says what is missing. */

import type { CaptureEngineHalf, CaptureWorkerHalf } from '../../contract/capture.ts';
import { RoutedExpertsError } from '../../contract/errors.ts';
import { designNames, type DeclaredGap, type Design, type MissingRows } from '../designs.ts';
import { BrokenContract, callHook, designFailed, shown } from './hook-call.ts';

/** The hooks of each half that it must have, and those that it may have. */
const HOOKS = {
  engineHalf: {
    required: ['wants', 'onStepOutput', 'take', 'release', 'liveCounts'],
    optional: [
      'hasRows',
      'onPrefixHit',
      'acceptsExternalKv',
      'onExternalKv',
      'onBlocksCached',
      'onScheduled',
      'onPreempt',
      'evictedRows',
      'onBlockEvicted',
      'onCacheReset',
      'onStepsLost',
      'close',
    ],
  },
  workerHalf: { required: ['record', 'collect'], optional: ['forget', 'recycle', 'liveCounts', 'close'] },
} as const satisfies Record<string, Hooks>;

type Hooks = Readonly<{
  required: readonly (keyof CaptureEngineHalf | keyof CaptureWorkerHalf)[];
  optional: readonly (keyof CaptureEngineHalf | keyof CaptureWorkerHalf)[];
}>;

const MISSING_KINDS: Readonly<Record<MissingRows, true>> = {
  all: true,
  'prefix-hit': true,
  aborted: true,
  stopped: true,
  'ended-without-blocks': true,
};

/**
 * The design that a module exports, as its default or by name. Its halves are checked when they are made: DESIGN_FAILED
 * is thrown then. Throws BAD_DESIGN.
 *
 * @param module as the caller named it, for messages
 */
export function checkedDesign(exported: Readonly<Record<string, unknown>>, module: string): Design {
  const { default: whole } = exported;
  const found = (typeof whole === 'object' && whole !== null ? whole : exported) as Partial<Design>;
  const { name, gaps = [], engineHalf, workerHalf } = found;
  const missing = Object.entries({ name, gaps: found.gaps, engineHalf, workerHalf }).filter(([, part]) => part == null);
  if (missing.length > 0) {
    const absent = missing.map(([part]) => part).join(', no ');
    throw badDesign(module, `it exports no ${absent}; a design exports name, gaps, engineHalf and workerHalf`);
  }
  if (typeof name !== 'string' || !/^[\w.-]+$/.test(name)) {
    throw badDesign(module, `its name is ${shown(name)}; take letters, digits, "-", "_" and "."`);
  }
  if ((designNames as readonly string[]).includes(name)) {
    throw badDesign(module, `its name, "${name}", is that of a built-in design; take another`);
  }
  for (const [part, half] of Object.entries({ engineHalf, workerHalf })) {
    if (typeof half !== 'function') throw badDesign(module, `its ${part} is ${shown(half)}; make it a function`);
  }
  checkGaps(gaps, module);
  return {
    name,
    gaps,
    engineHalf: (...args) => made(name, 'engineHalf', () => found.engineHalf!(...args)),
    workerHalf: (...args) => made(name, 'workerHalf', () => found.workerHalf!(...args)),
  };
}

function checkGaps(gaps: readonly DeclaredGap[], module: string): void {
  if (!Array.isArray(gaps)) throw badDesign(module, `its gaps are ${shown(gaps)}; give a list, empty if it has none`);
  for (const [i, gap] of (gaps as readonly Partial<DeclaredGap>[]).entries()) {
    const { law, reason, missing } = gap ?? {};
    if (!/^L([1-9]|10)$/.test(String(law))) {
      throw badDesign(module, `gaps[${i}].law is ${shown(law)}; give one of L1 to L10`);
    }
    if (typeof reason !== 'string') throw badDesign(module, `gaps[${i}].reason is ${shown(reason)}; give a text`);
    if (missing === undefined || Object.hasOwn(MISSING_KINDS, missing)) continue;
    const kinds = Object.keys(MISSING_KINDS).join(', ');
    throw badDesign(module, `gaps[${i}].missing is ${shown(missing)}; leave it out, or give one of ${kinds}`);
  }
}

/** A half with every hook that it must have, or `null`. Throws DESIGN_FAILED. */
function made<H extends object>(design: string, part: keyof typeof HOOKS, make: () => H | null): H | null {
  try {
    const half = callHook(make);
    if (half === null) return null;
    if (typeof half !== 'object') throw new BrokenContract(`it returned ${shown(half)}; return a half or null`);
    const { required, optional }: Hooks = HOOKS[part];
    const hookOf = (hook: string): unknown => (half as Readonly<Record<string, unknown>>)[hook];
    const missing = required.filter((hook) => typeof hookOf(hook) !== 'function');
    if (missing.length > 0) throw new BrokenContract(`it returned a half without ${missing.join(', ')}`);
    for (const hook of optional) {
      if (hookOf(hook) === undefined || typeof hookOf(hook) === 'function') continue;
      throw new BrokenContract(`${hook} of the half is ${shown(hookOf(hook))}; make it a function or leave it out`);
    }
    return half;
  } catch (error) {
    throw designFailed(design, part, error);
  }
}

function badDesign(module: string, problem: string): RoutedExpertsError {
  return RoutedExpertsError.of('BAD_DESIGN', module, problem);
}
