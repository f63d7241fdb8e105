/**
 * A module named at run time, as worker threads want it: the checkout runs TypeScript, the package the JavaScript that
 * is made from it.
 */

/** The module `name` (without extension) in the folder of the module `url`. */
export function moduleBeside(url: string, name: string): URL {
  return new URL(`./${name}${url.endsWith('.ts') ? '.ts' : '.js'}`, url);
}
