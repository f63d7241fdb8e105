// Every subpath of the package has a source, types and a module, and every name of it a doc comment at its source.

import { existsSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { describe, expect, test } from 'vitest';

type Target = Readonly<{ 'routed-experts-source': string; types: string; default: string }>;

const root = join(import.meta.dirname, '..', '..');
const manifest = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as {
  exports: Readonly<Record<string, Target | string>>;
};
const subpaths = Object.entries(manifest.exports).filter(
  (entry): entry is [string, Target] => typeof entry[1] !== 'string',
);

test('there are the package itself, its layers, and its manifest', () => {
  const names = ['.', './engine', './designs', './sim', './router', './rows', './package.json'];
  expect(Object.keys(manifest.exports)).toEqual(names);
});

describe.each(subpaths)('%s', (_, { 'routed-experts-source': source, types, default: module }) => {
  test('types and module are what the build makes of the source', () => {
    expect(existsSync(join(root, source))).toBe(true);
    const built = source.replace('./src/', './dist/').replace(/\.ts$/, '');
    expect([types, module]).toEqual([`${built}.d.ts`, `${built}.js`]);
  });

  test('every name has a doc comment', () => {
    const names = exportedNames(join(root, source));
    expect(names.length).toBeGreaterThan(5);
    expect(names.filter(({ name, file }) => !isDocumented(name, file))).toEqual([]);
  });
});

/** The names of `export { … } from '…'`, and the files where they are declared. */
function exportedNames(file: string): readonly Readonly<{ name: string; file: string }>[] {
  const lists = readFileSync(file, 'utf8').matchAll(/export (?:type )?\{([^}]*)\} from '([^']+)'/g);
  return [...lists].flatMap(([, names = '', from = '']) =>
    names
      .split(',')
      .map((name) => name.trim().replace(/^type /, ''))
      .filter((name) => name !== '')
      .map((name) => ({ name, file: join(dirname(file), from) })),
  );
}

function isDocumented(name: string, file: string): boolean {
  const declaration = `export (?:async )?(?:function\\*?|const|class|interface|type) ${name}\\b`;
  return new RegExp(`\\*/\\n${declaration}`).test(readFileSync(file, 'utf8'));
}
