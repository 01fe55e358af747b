/**
 * Which finding the own differences of fields last went to, so that follow-ons are traced to it.
 *
 * @module
 */

/** What two policies that are compared are called together. */
export function pairOf(policies: readonly [string, string]): string {
  return policies.join("|");
}

/** The ids of the groups that the own differences of fields last went to, to trace follow-ons. */
export class Owners {
  readonly #groups = new Map<string, string>();
  #last: string | undefined;

  /** All there are, in the order in which fields first became ones that differ. */
  get all(): Iterable<readonly [string, string]> {
    return this.#groups;
  }

  /** The group of a field, if it has one. */
  known(name: string | undefined): string | undefined {
    return name === undefined ? undefined : this.#groups.get(name);
  }

  /** The group of a field; of the one that most recently became one that differs where it has none. */
  of(name: string | undefined): string {
    return this.known(name) ?? this.known(this.#last) ?? "";
  }

  /** Says which group a field's own difference went to; whether that was another before. */
  set(name: string, group: string): boolean {
    const before = this.#groups.get(name);
    if (before === group) return false;
    if (before === undefined) this.#last = name;
    this.#groups.set(name, group);
    return true;
  }
}

/** The owner of a field as it was asked for or made. */
export interface OwnerUse {
  /** The owners of the pair of policies. */
  readonly owners: Owners;
  /** Name of the field, if it was asked for one. */
  readonly name: string | undefined;
  /** The owner. */
  readonly owner: string;
  /** Whether the owner is that of the field that most recently became one that differs. */
  readonly recent: boolean;
  /** Whether it was made. */
  readonly made: boolean;
}

/** Whether owners are those that were asked for. */
export function asBefore(uses: readonly OwnerUse[]): boolean {
  for (let i = 0; i < uses.length; i++) {
    const { owners, name, owner, made } = uses[i] as OwnerUse;
    if (!made && owners.of(name) !== owner) return false;
  }
  return true;
}

/** Makes those that were made; whether any was another before. */
export function makeAgain(uses: readonly OwnerUse[]): boolean {
  let moved = false;
  for (let i = 0; i < uses.length; i++) {
    const { owners, name, owner, made } = uses[i] as OwnerUse;
    if (made && name !== undefined && owners.set(name, owner)) moved = true;
  }
  return moved;
}
