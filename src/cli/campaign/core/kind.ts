/** What differs between kinds of campaigns. How each runs, where, and how its results come together does not. */

/** Tasks whose results count in their order. With more violations than `mostViolations` the others are not run. */
export type TaskSeries<Task> = Readonly<{ tasks: readonly Task[]; mostViolations: number }>;

/** Runs tasks, as many at a time as it was opened for. */
export type TaskRunner<Task, Result> = Readonly<{
  run(task: Task): Promise<Result>;
  close(): Promise<void>;
}>;

/** All that decides a campaign's results beside the code. It goes through JSON. */
export type Description = Readonly<{ kind: string }>;

/** What a report may be given on the command line. */
export type ReportFlags = Readonly<{
  json?: boolean;
  save?: string;
  out?: string;
  mutations?: string;
  /** Files of a bench. */
  jsonFile?: string | undefined;
  csv?: string | undefined;
}>;

/** Tasks and results go through JSON, too. A task is one shard: what is hashed is never cut. */
export type CampaignKind<Described extends Description, Task, Result> = Readonly<{
  name: Described['kind'];
  seriesOf(description: Described): readonly TaskSeries<Task>[];
  /** Scenarios, or whatever else progress is counted in. */
  sizeOf(task: Task): number;
  numViolations(result: Result): number;
  /** What two runs of one task agree in, wherever each of them ran; absent = all of their results (L10). */
  repeatablePart?(result: Result): unknown;
  /** Its tasks measure times: a worker runs them one at a time, and nothing beside them. */
  measures?: true;
  openRunner(jobs: number): TaskRunner<Task, Result>;
  /** Rejects unless this machine has all that the description names, and the same. */
  checkHere(description: Described): Promise<void>;
  /** Prints what the campaign found, and sets the exit code. `seconds`: null where no clock ran along. */
  report(found: {
    description: Described;
    /** Of each series, in order. */
    results: readonly (readonly Result[])[];
    seconds: number | null;
    flags: ReportFlags;
  }): void;
}>;

/** A kind whose types are known to itself alone. */
export type AnyKind = CampaignKind<Description, unknown, unknown>;
