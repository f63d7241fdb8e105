/** What strikes a run from outside, and when. */

/** How far a step has come; a fault can wait for a step to get there. */
export const STEP_PHASES = ['begun', 'submitted', 'executed', 'mapped', 'arrived', 'updated'] as const;
export type StepPhase = (typeof STEP_PHASES)[number];

/** An instant, or the moment at which a step gets somewhere. */
export type Moment = Readonly<{ at: number }> | Readonly<{ step: number; phase: StepPhase }>;

export type Fault = Readonly<{ when: Moment }> &
  (
    | Readonly<{ kind: 'abort'; ids: readonly string[] }>
    | Readonly<{ kind: 'reset-cache'; preempt: boolean }>
    /** The rank dies with everything on it. */
    | Readonly<{ kind: 'kill'; rank: number }>
    /** A process takes the lock of shared memory and keeps it for so long. Most designs have no lock. */
    | Readonly<{ kind: 'slow-lock-holder'; ticks: number }>
  );

export type FaultKind = Fault['kind'];
