/**
 * Finds a design: a built-in one by its name, one of the caller's own by its module. Functions cannot go to another
 * thread, so each thread imports the module itself, by its URL.
 */

import { statSync } from 'node:fs';
import { registerHooks, type ModuleHooks } from 'node:module';
import { resolve } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { checkedDesign } from '../capture/guard/checked-design.ts';
import { guardedDesign } from '../capture/guard/guarded-design.ts';
import { designByName, type Design } from '../capture/designs.ts';
import type { DesignReference } from '../contract/config.ts';
import { RoutedExpertsError } from '../contract/errors.ts';

/** A module whose top level waits for longer is given up. */
const IMPORT_TIMEOUT_MS = 30_000;

/** Whether the text names a module: a path that begins with `.` or `/`, or ends as modules do, or a `file:` URL. */
export function isDesignModule(text: string): boolean {
  return /^(?:\.{0,2}\/|file:|[A-Za-z]:\\)|\.m?[jt]s$/.test(text);
}

/**
 * What a design is called across threads: the name of a built-in one, or the URL of a module. A path is relative to the
 * working directory. Throws UNKNOWN_NAME, and BAD_DESIGN for a URL that is no `file:` URL.
 */
export function designReference(given: string | URL): DesignReference {
  if (given instanceof URL || /^(?:file:|\w+:\/\/)/.test(given)) {
    const url = URL.parse(String(given));
    if (url?.protocol === 'file:') return url.href as DesignReference;
    throw RoutedExpertsError.of('BAD_DESIGN', String(given), 'it is no file: URL');
  }
  if (!isDesignModule(given)) return designByName(given).name;
  return pathToFileURL(resolve(given)).href as DesignReference;
}

/** The design, guarded if it is the caller's own. Rejects with UNKNOWN_NAME and BAD_DESIGN. */
export async function loadDesign(reference: DesignReference): Promise<Design> {
  return isDesignModule(reference) ? guardedDesign(await importDesign(reference)) : designByName(reference);
}

/** The design that a module exports, without a guard: for the simulator. Rejects with BAD_DESIGN. */
export async function importDesign(url: string): Promise<Design> {
  const path = fileURLToPath(url);
  const bad = (problem: string): RoutedExpertsError => RoutedExpertsError.of('BAD_DESIGN', path, problem);
  const found = statSync(path, { throwIfNoEntry: false });
  if (found === undefined) throw bad('there is no such file');
  if (!found.isFile()) throw bad('it is no file; name the file of the module');
  const { promise: tooLong, reject } = Promise.withResolvers<never>();
  const hooks = import.meta.url.endsWith('.ts') ? resolveToSource() : null;
  let exported: Readonly<Record<string, unknown>>;
  const timer = setTimeout(
    () => reject(new Error(`not imported after ${IMPORT_TIMEOUT_MS / 1e3} s`)),
    IMPORT_TIMEOUT_MS,
  );
  try {
    exported = (await Promise.race([import(url), tooLong])) as typeof exported;
  } catch (error) {
    throw bad(`it cannot be imported: ${problemOf(error)}`);
  } finally {
    clearTimeout(timer);
    hooks?.deregister();
  }
  return checkedDesign(exported, path);
}

/** In a checkout, what a module imports of `routed-experts` is the source that runs, wherever the module lies. */
function resolveToSource(): ModuleHooks {
  return registerHooks({
    resolve: (specifier, context, next) => {
      if (!/^routed-experts(?:\/|$)/.test(specifier)) return next(specifier);
      const conditions = [...context.conditions, 'routed-experts-source'];
      return next(specifier, { conditions, parentURL: import.meta.url });
    },
  });
}

/** With its place: of a syntax error in the first line of the stack, else where the module's own code threw. */
function problemOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const { code } = error as NodeJS.ErrnoException;
  if (code === 'ERR_UNSUPPORTED_NODE_MODULES_TYPE_STRIPPING') {
    return 'Node runs no TypeScript under node_modules; give the JavaScript that is made from it';
  }
  const [first = '', ...frames] = error.stack?.split('\n') ?? [];
  const frame = frames.find((line) => line.trimStart().startsWith('at '))?.trim() ?? '';
  const place = first.startsWith('file:') ? ` (${first})` : frame !== '' && !frame.includes('node:') ? ` ${frame}` : '';
  return `${error.name}: ${error.message}${place}`;
}
