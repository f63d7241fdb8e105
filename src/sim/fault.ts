/** What goes wrong in a run, and when. */

/** The phases of a step, in their order; a fault can wait until a step reaches one. */
export const STEP_PHASES = ['begun', 'submitted', 'executed', 'mapped', 'arrived', 'updated'] as const;
export type StepPhase = (typeof STEP_PHASES)[number];

/** A tick, or the moment at which a step reaches a phase. */
export type Moment = Readonly<{ at: number }> | Readonly<{ step: number; phase: StepPhase }>;

/** Something that goes wrong, and when. */
export type Fault = Readonly<{ when: Moment }> &
  (
    | Readonly<{ kind: 'abort'; ids: readonly string[] }>
    | Readonly<{ kind: 'reset-cache'; preempt: boolean }>
    /** The rank dies with everything on it. */
    | Readonly<{ kind: 'kill'; rank: number }>
    /** A process takes the lock of shared memory and keeps it for `ticks`. Most designs have no lock. */
    | Readonly<{ kind: 'slow-lock-holder'; ticks: number }>
  );

export const FAULT_KINDS: readonly Fault['kind'][] = ['abort', 'reset-cache', 'kill', 'slow-lock-holder'];

/** Says a moment in words. */
export function describeMoment(when: Moment): string {
  return 'at' in when ? `at ${when.at}` : `when step ${when.step} is ${when.phase}`;
}
