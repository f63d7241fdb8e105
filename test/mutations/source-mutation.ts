/** A defect as one replacement in one source file, and the test or command that must fail with it. */
export type SourceMutation = Readonly<{
  /** Unique, kebab-case. */
  name: string;
  /** What the patched code does wrong. */
  defect: string;
  file: string;
  /** Occurs exactly once in the file. */
  find: string;
  replace: string;
  /** A test file, or the arguments of `routed-experts`. */
  killedBy: Readonly<{ test: string }> | Readonly<{ command: readonly string[] }>;
}>;
