export type SourceMutation = Readonly<{
  name: string;
  defect: string;
  file: string;
  find: string;
  replace: string;
  killedBy: Readonly<{ test: string }> | Readonly<{ command: readonly string[] }>;
}>;
