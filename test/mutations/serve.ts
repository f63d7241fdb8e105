import type { SourceMutation } from './source-mutation.ts';

const choices = { test: 'test/serve/choices.integration.test.ts' };

export const serveMutations: readonly SourceMutation[] = [
  {
    name: 'choices-half-submitted',
    defect: 'when one of n choices is refused, those added before it stay in the engine',
    file: 'src/serve/engine-host.ts',
    find: 'this.#driver.abort(added);',
    replace: '',
    killedBy: choices,
  },
  {
    name: 'usage-of-the-last-choice',
    defect: 'the usage has the completion tokens of the last choice only',
    file: 'src/serve/answer.ts',
    find: 'const completionTokens = choices.reduce((sum, choice) => sum + choice.tokenIds.length, 0);',
    replace: 'const completionTokens = choices.at(-1)!.tokenIds.length;',
    killedBy: choices,
  },
  {
    name: 'cached-tokens-of-the-last-choice',
    defect: 'the usage calls cached what the first choice of a prompt computed and the last one hit',
    file: 'src/serve/answer.ts',
    find: 'if (!prompts.has(promptTokenIds)) prompts.set(',
    replace: 'prompts.set(',
    killedBy: choices,
  },
];
