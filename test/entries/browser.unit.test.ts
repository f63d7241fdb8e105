// The engine, the designs, the rows and the simulator run where there is no Node, and the simulator runs there as it
// does here: the same event logs (L10).

import { createContext, Script } from 'node:vm';
import { beforeAll, describe, expect, test } from 'vitest';
import { runSeeds, testedDesignByName, testedDesignNames } from '../../src/entries/sim.ts';
import { bundleEntry } from './bundle.ts';

test.each(['engine', 'designs', 'rows', 'router', 'sim'])(
  '%s: its bundle is whole, and loads in a bare context',
  async (name) => {
    const { code, outside } = await bundleEntry(name);
    expect(outside).toEqual([]);
    const here = await import(`../../src/entries/${name}.ts`);
    expect(inBareContext(code)('Object.keys(entry).sort()')).toEqual(Object.keys(here as object).sort());
  },
);

describe('the simulator in a bare context', () => {
  let run: (expression: string) => unknown;
  beforeAll(async () => {
    run = inBareContext((await bundleEntry('sim')).code);
  });

  test('there is no Node, and no clock that a browser has', () => {
    const names = ['process', 'require', 'Buffer', 'setTimeout', 'performance', 'TextEncoder'];
    expect(names.map((name) => run(`typeof ${name}`))).toEqual(names.map(() => 'undefined'));
  });

  const campaigns = [
    ['deltas', 100, false],
    ['deltas', 25, true],
    ...testedDesignNames.map((name) => [name, 10, false] as const),
  ] as const;

  test.each(campaigns)('%s: %i seeds have the event logs of Node; two engines: %s', (name, numSeeds, pd) => {
    const options = { from: 0, to: numSeeds, pd, twice: false, stopAfter: 0 };
    const { hash, steps } = runSeeds(testedDesignByName(name), options);
    const there = `entry.runSeeds(entry.testedDesignByName('${name}'), ${JSON.stringify(options)})`;
    expect(run(there)).toMatchObject({ scenarios: numSeeds, steps, hash, violations: [] });
  });
});

/** Runs a bundle in a realm with nothing but the language. Returns what evaluates an expression there, as JSON. */
function inBareContext(code: string): (expression: string) => unknown {
  const context = createContext({});
  new Script(code, { filename: 'bundle.js' }).runInContext(context);
  return (expression) => JSON.parse(new Script(`JSON.stringify(${expression})`).runInContext(context) as string);
}
