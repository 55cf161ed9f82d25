import { undeserializable } from './emulated-errors.ts';
import { readScript, type EmulatorScript } from './emulated-script.ts';
import { count, fields, isObject, listOf, number, text } from './emulated-shape.ts';

/** A script for calls that carry none of their own. The first rule that applies is played. */
export interface EmulatorFault extends EmulatorScript {
  /** /v1/chat/completions, or with a star for its last part. Without it: every path that may be billed, which spares lists and look-ups. */
  path?: string;
  /** As named by the caller, or the id of the model that serves it. */
  model?: string;
  /** Of the calls that match, 1 unless given. They are spread evenly, not drawn by lot: of 0.25, every fourth. */
  share?: number;
  /** The rule is spent after so many. */
  calls?: number;
}

interface Rule {
  readonly path?: string;
  readonly model?: string;
  readonly share: number;
  readonly callsMax: number;
  readonly script: EmulatorScript;
  matched: number;
  played: number;
}

const checkRules = fields({ faults: listOf(fields({}, { path: text, model: text, share: number, calls: count })) });

/** The faults that an emulator has been told to have. */
export class FaultRules {
  private rules: Rule[] = [];

  /** In place of those before. @throws EmulatedRefusal 422 for a rule that would never be played as meant */
  set(faults: readonly EmulatorFault[]): void {
    this.rules = faults.map(({ path, model, share: asked, calls, ...script }, index) => {
      const share = asked ?? 1;
      if (share < 0 || share > 1) throw undeserializable(`faults[${index}].share: expected a number from 0 to 1`);
      return { path, model, share, callsMax: calls ?? Infinity, script: readScript(script, `faults[${index}]`), matched: 0, played: 0 };
    });
  }

  /** The script of the next call; counts it as played. */
  take(path: string, models: readonly string[]): EmulatorScript | undefined {
    return this.rules.find((rule) => applies(rule, path, models) && isNext(rule))?.script;
  }

  /** The same for a path that a rule has to name. */
  takeNamed(path: string): EmulatorScript | undefined {
    return this.rules.find((rule) => rule.path !== undefined && applies(rule, path, []) && isNext(rule))?.script;
  }
}

function applies({ path, model }: Rule, calledPath: string, models: readonly string[]): boolean {
  const pathFits = path === undefined || path === calledPath || path === calledPath.replace(/[^/]+$/, '*');
  return pathFits && (model === undefined || models.includes(model));
}

function isNext(rule: Rule): boolean {
  if (rule.played >= rule.callsMax) return false;
  rule.matched += 1;
  if (Math.floor(rule.matched * rule.share + ROUNDING) === Math.floor((rule.matched - 1) * rule.share + ROUNDING)) return false;
  rule.played += 1;
  return true;
}

/** Ten times a tenth is one. */
const ROUNDING = 1e-9;

/** @throws EmulatedRefusal 422 */
export function readFaults(json: unknown): readonly EmulatorFault[] {
  checkRules(json, '');
  return isObject(json) ? (json['faults'] as EmulatorFault[]) : [];
}
