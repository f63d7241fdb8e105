/** Reads the `.wgsl` files that lie beside this module, and puts a kernel's constants in front of it. */

import { readFileSync } from 'node:fs';

const cache = new Map<string, string>();

/** Text of `wgsl/<name>.wgsl`. */
function load(name: string): string {
  let text = cache.get(name);
  if (text === undefined) {
    text = readFileSync(new URL(`./wgsl/${name}.wgsl`, import.meta.url), 'utf8');
    cache.set(name, text);
  }
  return text;
}

const DIRECTIVE = /^(?:enable|diagnostic|requires)\b[^;]*;\s*$/gm;

/**
 * A complete module: the kernel's directives, which WGSL wants first, the constants as `const NAME: u32 = …u;`, the shared functions of
 * `mix.wgsl`, then the kernel.
 */
export function wgslSource(name: string, constants: Readonly<Record<string, number>>): string {
  const text = load(name);
  const directives = text.match(DIRECTIVE) ?? [];
  const declarations = Object.entries(constants).map(([constant, value]) => `const ${constant}: u32 = ${value}u;`);
  return [...directives.map((line) => line.trim()), ...declarations, '', load('mix'), text.replace(DIRECTIVE, '')].join(
    '\n',
  );
}
