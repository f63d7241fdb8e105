/**
 * `npm run mutations`: breaks the source in known ways, one at a time, and demands that the named test or command
 * fails.
 */

import { writeFileSync } from 'node:fs';
import Table from 'cli-table3';
import { Command, InvalidArgumentError } from 'commander';
import type { MutationResult } from '../../src/cli/fuzz/mutation-results.ts';
import { finite, list, whole } from '../../src/cli/options.ts';
import { allMutations } from './all.ts';
import { ScratchTree } from './scratch-tree.ts';
import type { SourceMutation } from './source-mutation.ts';
import { endTrials, killerText, tryKiller, type Verdict } from './trial.ts';

type Flags = { only?: string[]; jobs: number; timeout: number; json?: string };

const program = new Command('mutations')
  .description('Break the source in each known way, and demand that the test or command named for it fails')
  .option('--only <names>', 'some mutations, by name', list(knownMutation))
  .option('--jobs <n>', 'how many at a time, each in a copy of its own', whole(1, 64), 1)
  .option('--timeout <s>', 'a test or command that takes longer hangs', finite(1), 180)
  .option('--json <file>', 'write the results to this file; `matrix --mutations FILE` puts them on its page')
  .addHelpText('after', '\nExit code: 0 each mutation is killed and every test passes without it, else 1.')
  .action(run);
await program.parseAsync();

async function run({ only, jobs, timeout, json }: Flags): Promise<void> {
  const mutations = allMutations.filter(({ name }) => only === undefined || only.includes(name));
  const trees = Array.from({ length: Math.min(jobs, mutations.length) }, () => new ScratchTree());
  const clearAway = (): void => {
    endTrials();
    for (const tree of trees) tree.remove();
  };
  process.once('exit', clearAway);
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => process.exit(1));
  const killers = new Map(mutations.map(({ killedBy }) => [killerText(killedBy), killedBy]));
  let numBroken = 0;
  await shareOut([...killers], trees, async ([text, killer], tree) => {
    const verdict = await tryKiller(killer, tree, timeout * 1000);
    if (verdict.state !== 'passed') numBroken += 1;
    process.stderr.write(`unpatched: ${text}: ${verdict.how}\n`);
  });
  if (numBroken > 0) {
    process.stderr.write(`${numBroken} of ${killers.size} fail without a mutation: they show nothing\n`);
    process.exitCode = 1;
    return;
  }

  const verdicts = new Map<SourceMutation, Verdict>();
  await shareOut(mutations, trees, async (mutation, tree) => {
    const verdict = await tree.patched(mutation, () => tryKiller(mutation.killedBy, tree, timeout * 1000));
    verdicts.set(mutation, verdict);
    process.stderr.write(`${mutation.name}: ${stateText(verdict)}: ${verdict.how}\n`);
  });
  const results = mutations.map((mutation): MutationResult => {
    const { state, how } = verdicts.get(mutation)!;
    const { name, defect, file, killedBy } = mutation;
    return { name, defect, file, command: killerText(killedBy), killed: state === 'killed', how };
  });
  const table = new Table({ head: ['mutation', 'killed', 'how'], style: { head: [], border: [] } });
  for (const { name, killed, how } of results) table.push([name, killed ? 'yes' : 'NO', how]);
  process.stdout.write(`${table.toString()}\n`);
  if (json !== undefined) writeFileSync(json, `${JSON.stringify(results, null, 2)}\n`);
  process.exitCode = results.every(({ killed }) => killed) ? 0 : 1;
}

/** Each tree takes the next item when it is done with its last. */
async function shareOut<T>(
  items: readonly T[],
  trees: readonly ScratchTree[],
  work: (item: T, tree: ScratchTree) => Promise<void>,
): Promise<void> {
  const left = items.values();
  await Promise.all(
    trees.map(async (tree) => {
      for (const item of left) await work(item, tree);
    }),
  );
}

function stateText({ state }: Verdict): string {
  return { passed: 'SURVIVES', killed: 'killed', invalid: 'SHOWS NOTHING' }[state];
}

function knownMutation(name: string): string {
  if (allMutations.some((mutation) => mutation.name === name)) return name;
  throw new InvalidArgumentError(`There are: ${allMutations.map((each) => each.name).join(', ')}.`);
}
