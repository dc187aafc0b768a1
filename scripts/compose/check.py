"""Checks a Compose file without an engine: interpolation, the Compose schema, and the rules of this repository."""

import json
import os
import re
import sys
from pathlib import Path

import jsonschema
import yaml

SCHEMA = Path(__file__).with_name("compose-spec.json")
LOOPBACK = "127.0.0.1"

# $$, $NAME, or the start of ${NAME with an optional operator; what follows an operator may nest.
VARIABLE = re.compile(r"\$(?:(?P<escape>\$)|(?P<plain>[A-Za-z_]\w*)|\{(?P<braced>[A-Za-z_]\w*)(?P<operator>:?[-?+])?)")


class Problem(Exception):
    """One sentence for the person who has to mend the file."""


class UniqueKeys(yaml.SafeLoader):
    """PyYAML keeps the last of two equal keys in silence; Compose refuses them."""

    def construct_mapping(self, node, deep=False):
        seen = set()
        for key, _ in node.value:
            if key.tag != "tag:yaml.org,2002:merge":
                if key.value in seen:
                    raise Problem(f"line {key.start_mark.line + 1}: the key '{key.value}' is there twice")
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def interpolate(text, where):
    """Replaces variables as Compose does; one that is unset and has no default is an error here."""
    result, position = "", 0
    while (dollar := text.find("$", position)) >= 0:
        match = VARIABLE.match(text, dollar)
        if not match:
            raise Problem(f"{where}: '$' at column {dollar + 1} of '{text}' starts no variable; write '$$'")
        result += text[position:dollar]
        if match["escape"]:
            value, position = "$", match.end()
        elif match["plain"]:
            value, position = substitute(match["plain"], None, "", where), match.end()
        else:
            argument, position = braced_argument(text, match.end(), where)
            if argument and not match["operator"]:
                raise Problem(f"{where}: '{text}' has '{argument}' after a variable's name; an operator was expected")
            value = substitute(match["braced"], match["operator"], argument, where)
        result += value
    return result + text[position:]


def braced_argument(text, start, where):
    """The text up to the brace that closes the variable, and the position behind it."""
    depth = 1
    for position in range(start, len(text)):
        depth += text.startswith("${", position) - (text[position] == "}")
        if depth == 0:
            return text[start:position], position + 1
    raise Problem(f"{where}: '{text}' has no closing brace")


def substitute(name, operator, argument, where):
    value = os.environ.get(name)
    present = value if operator and operator.startswith(":") else value is not None
    kind = operator[-1] if operator else None
    if kind == "+":
        return interpolate(argument, where) if present else ""
    if present:
        return value
    if kind == "-":
        return interpolate(argument, where)
    if value is not None and not operator:
        return value
    raise Problem(f"{where}: the variable {name} is not set and has no default; write ${{{name}:-default}}")


def interpolated(node, where=""):
    if isinstance(node, dict):
        return {key: interpolated(value, f"{where}.{key}" if where else str(key)) for key, value in node.items()}
    if isinstance(node, list):
        return [interpolated(value, f"{where}[{index}]") for index, value in enumerate(node)]
    return interpolate(node, where) if isinstance(node, str) else node


def schema_problems(compose):
    schema = json.loads(SCHEMA.read_text())
    validator = jsonschema.validators.validator_for(schema)(schema)
    errors = list(validator.iter_errors(compose))
    # A wrong value also makes its neighbours "unevaluated"; that only counts where nothing else is wrong.
    errors = [error for error in errors if error.validator != "unevaluatedProperties"] or errors
    for error in sorted(errors, key=lambda error: list(map(str, error.absolute_path))):
        # Of the alternatives that a value could have been, the nearest says best what is wrong.
        nearest = jsonschema.exceptions.best_match([error])
        place = ".".join(map(str, nearest.absolute_path)) or "the file"
        yield f"{place}: {nearest.message}"


def build_problems(service, root):
    build = service.get("build")
    if build is None:
        return
    build = {"context": build} if isinstance(build, str) else build
    context = root / build.get("context", ".")
    dockerfile = context / build.get("dockerfile", "Dockerfile")
    if not context.is_dir():
        yield f"the build context {context} does not exist"
    elif not dockerfile.is_file():
        yield f"the dockerfile {dockerfile} does not exist"
    else:
        stages = re.findall(r"^FROM\s.*\sAS\s+(\S+)", dockerfile.read_text(), re.IGNORECASE | re.MULTILINE)
        if "target" in build and build["target"] not in stages:
            yield f"the target '{build['target']}' is no stage of {dockerfile.name} (stages: {', '.join(stages)})"


def mount_problems(service, root, declared):
    for volume in service.get("volumes", []):
        if isinstance(volume, str):
            source = volume.split(":")[0] if ":" in volume else None
            bind = source is not None and source[0] in "./~"
        else:
            source, bind = volume.get("source"), volume["type"] == "bind"
            if volume["type"] not in ("bind", "volume"):
                continue
        if bind and not (root / Path(source).expanduser()).exists():
            yield f"the mounted path {source} does not exist"
        elif source and not bind and source not in declared:
            yield f"the volume '{source}' is not declared under 'volumes'"


def port_problems(service):
    for port in service.get("ports", []):
        loopback = port.get("host_ip") == LOOPBACK if isinstance(port, dict) else str(port).startswith(f"{LOOPBACK}:")
        if not loopback:
            yield f"the port {port} is published beyond {LOOPBACK}"


def has_healthcheck(service):
    check = service.get("healthcheck", {})
    return bool(check.get("test")) and not check.get("disable")


def dependency_problems(service, services):
    wanted = service.get("depends_on", {})
    if isinstance(wanted, list):
        wanted = dict.fromkeys(wanted, {"condition": "service_started"})
    for name, how in wanted.items():
        condition = how.get("condition", "service_started")
        if name not in services:
            yield f"it depends on '{name}', which is no service"
        elif condition == "service_healthy" and not has_healthcheck(services[name]):
            yield f"it waits until '{name}' is healthy, but '{name}' has no healthcheck"
        elif condition == "service_completed_successfully" and services[name].get("restart", "no") not in ("no", False):
            yield f"it waits until '{name}' has ended, but '{name}' is always restarted"


def problems(path):
    compose = interpolated(yaml.load(path.read_text(), UniqueKeys))
    found = list(schema_problems(compose))
    if found:
        return found
    services, declared = compose.get("services", {}), compose.get("volumes") or {}
    for name, service in services.items():
        root = path.parent
        for problem in (
            *build_problems(service, root),
            *mount_problems(service, root, declared),
            *port_problems(service),
            *dependency_problems(service, services),
        ):
            found.append(f"services.{name}: {problem}")
    return found


def main():
    path = Path(sys.argv[1])
    try:
        found = problems(path)
    except (Problem, yaml.YAMLError) as error:
        found = [str(error)]
    for problem in found:
        print(f"{path.name}: {problem}", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
