//! Keys of Docker Desktop's `admin-settings.json` that are about other features of Docker Desktop.
//!
//! An administrator has one file for both, so these are no errors; nothing of them is in force here, which is said wherever the
//! file is read. Docker's list: <https://docs.docker.com/enterprise/security/hardened-desktop/settings-management/configure-json-file/>.

/// A key of Docker's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Feature {
    /// The key at the top of the file.
    pub key: &'static str,
    /// What it is about, and what there is instead.
    pub what: &'static str,
}

const fn feature(key: &'static str, what: &'static str) -> Feature {
    Feature { key, what }
}

/// The keys, by name.
pub const FEATURES: &[Feature] = &[
    feature("allowBetaFeatures", "features of Docker Desktop"),
    feature("allowExperimentalFeatures", "features of Docker Desktop"),
    feature("analyticsEnabled", "what Docker Desktop reports to Docker; nothing is reported here"),
    feature("blockDockerLoad", "`docker load`, which stays allowed here"),
    feature("containersProxy", "the proxy of Docker Desktop's engine; `eci.engine.proxies` is for this one"),
    feature("defaultNetworkingMode", "Docker Desktop's network"),
    feature("desktopTerminalEnabled", "Docker Desktop's window"),
    feature("disableUpdate", "updates of Docker Desktop; nothing updates itself here"),
    feature("displayedOnboarding", "Docker Desktop's window"),
    feature("dnsInhibition", "Docker Desktop's network; `eci.engine.dns` is for this engine"),
    feature("enableDockerAI", "features of Docker Desktop"),
    feature("enableDockerMCPToolkit", "features of Docker Desktop"),
    feature("enableInference", "Docker's model runner, which is not here"),
    feature("enableInferenceCORS", "Docker's model runner, which is not here"),
    feature("enableInferenceGPUVariant", "Docker's model runner, which is not here"),
    feature("enableInferenceTCP", "Docker's model runner, which is not here"),
    feature("enableInferenceTCPPort", "Docker's model runner, which is not here"),
    feature("exposeDockerAPIOnTCP2375", "a port for the engine's API; there is none here, whatever it says"),
    feature("extensionsEnabled", "Docker Desktop's extensions, which are not here"),
    feature("extensionsPrivateMarketplace", "Docker Desktop's extensions, which are not here"),
    feature("extensionsPrivateMarketplaceAdminContactURL", "Docker Desktop's extensions, which are not here"),
    feature("filesharingAllowedDirectories", "folders of the host; none is shared here"),
    feature("kubernetes", "Docker Desktop's cluster, which is not here"),
    feature("linuxVM", "Docker Desktop's VM; `eci.engine` is for this engine"),
    feature("onlyMarketplaceExtensions", "Docker Desktop's extensions, which are not here"),
    feature(
        "portBindingBehavior",
        "published ports of Docker Desktop; those of containers here are as `-p` says",
    ),
    feature("proxy", "the proxy of Docker Desktop itself; `eci.engine.proxies` is for the engine here"),
    feature("scout", "Docker Scout, which is not here"),
    feature("silentModulesUpdate", "updates of Docker Desktop; nothing updates itself here"),
    feature("useGrpcfuse", "how Docker Desktop shares folders of the host; none is shared here"),
    feature("useVirtualizationFramework", "Docker Desktop's VM"),
    feature("useVirtualizationFrameworkRosetta", "Docker Desktop's VM"),
    feature(
        "useVirtualizationFrameworkVirtioFS",
        "how Docker Desktop shares folders of the host; none is shared here",
    ),
    feature("windowsContainers", "Docker's engine for Windows containers, which is not here"),
];

/// The feature that a key at the top of the file is about.
#[must_use]
pub fn feature_of(key: &str) -> Option<&'static Feature> {
    FEATURES.iter().find(|feature| feature.key == key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_there_once_and_says_what_it_is_about() {
        assert!(FEATURES.iter().all(|feature| !feature.what.is_empty()));
        assert!(FEATURES.windows(2).all(|pair| pair[0].key < pair[1].key), "by name");
        assert_eq!(feature_of("scout").map(|feature| feature.key), Some("scout"));
        assert_eq!(feature_of("Scout"), None);
    }
}
