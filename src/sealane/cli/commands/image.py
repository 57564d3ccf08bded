"""`sealane image …`: images that are unpacked here."""

from argparse import ArgumentParser, Namespace

from sealane.cli.context import Context
from sealane.cli.images import fetch, image_ref
from sealane.cli.options import add_quiet
from sealane.cli.parser import describe
from sealane.cli.registry import Verb
from sealane.cli.unsupported import add_ignored
from sealane.client import path_of
from sealane.model.image import is_image_ref


def configure_load(parser: ArgumentParser) -> None:
    describe(
        parser,
        "Unpacks an image, once for each digest, with skopeo and umoci. Prints by what --rootfs and manifests name it;\n"
        "`sealane run --rootfs oci:…` does the same by itself.",
        ["sealane image load oci:./build:latest", "sealane image load oci-archive:web.tar"],
    )
    parser.add_argument("reference", metavar="REFERENCE", help="oci:PATH[:TAG] or oci-archive:FILE[:TAG]")


def load(context: Context, arguments: Namespace) -> int:
    view = fetch(context, image_ref(arguments.reference, "REFERENCE"))
    if context.output.as_json:
        context.output.document(view)
    else:
        context.output.line(view["rootfs"])
    return 0


def configure_ls(parser: ArgumentParser) -> None:
    describe(parser, "With what each runs, the ports it exposes, and the containers that are made of it.")
    add_quiet(parser, "what --rootfs takes")


def list_images(context: Context, arguments: Namespace) -> int:
    views = context.client.request("GET", path_of("images"))
    if context.output.as_json:
        context.output.document(views)
    elif arguments.quiet:
        for view in views:
            context.output.line(view["rootfs"])
    else:
        rows = [
            [
                view["reference"],
                view["rootfs"].rpartition(":")[2][:12],
                " ".join([*view["entrypoint"], *view["command"]]),
                ", ".join(view["exposed"]),
                ", ".join(view["containers"]),
            ]
            for view in views
        ]
        context.output.table(["IMAGE", "DIGEST", "COMMAND", "EXPOSES", "CONTAINERS"], rows)
    return 0


def configure_rm(parser: ArgumentParser) -> None:
    describe(
        parser,
        "An image that containers are made of is kept. One that was loaded from several places bears the first one's name.",
        ["sealane image rm oci:/srv/images:web", "sealane image rm 3f1a9c"],
    )
    parser.add_argument(
        "image", metavar="IMAGE", nargs="+", help="as `image ls` shows it, a digest, or the beginning of one"
    )


def rm(context: Context, arguments: Namespace) -> int:
    # All are understood before one goes.
    desired = {ref: _absolute(ref) for ref in arguments.image}
    return context.each(
        desired, lambda ref: context.client.request("DELETE", path_of("images", desired[ref]))
    )


def _absolute(ref: str) -> str:
    return str(image_ref(ref, "IMAGE")) if is_image_ref(ref) else ref


def configure_prune(parser: ArgumentParser) -> None:
    describe(parser, "Removes the images that no container is made of. Prints their names.")
    add_ignored(parser, "-f/--force", "ignored: never prompts")
    add_ignored(parser, "-a/--all", "ignored: all unused images are removed")


def prune(context: Context, arguments: Namespace) -> int:  # noqa: ARG001 (a command's signature)
    view = context.client.request("POST", path_of("images", "prune"))
    context.output.names(view, "removed")
    return 0


VERBS = {
    "load": Verb(configure_load, load),
    "ls": Verb(configure_ls, list_images),
    "rm": Verb(configure_rm, rm),
    "prune": Verb(configure_prune, prune),
}
